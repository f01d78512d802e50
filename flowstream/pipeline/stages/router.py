"""From the processors to the batchers: whole slices, or message by message where they differ."""

from __future__ import annotations

from typing import Any

from flowstream.pipeline.message import Failure, Joint, Message, branch
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.texts import shown


class Router:
    """Routes processed messages. Without a route they go to "default", or to the only batcher."""

    def __init__(
        self, batchers: dict[str, Batcher], failure_handler: FailureHandler, stage: str
    ) -> None:
        self._batchers = batchers
        self._disposal = failure_handler
        self._stage = stage
        only = next(iter(batchers)) if len(batchers) == 1 else "default"
        self._default = batchers.get("default") or batchers.get(only)

    async def forward(self, messages: list[Message[Any]], plain: bool) -> None:
        """Hand processed messages to their batchers; `plain` ones have no wishes."""
        if plain and self._default is not None:
            self._default.put(messages, True)
            return
        routed: dict[str, list[Message[Any]]] = {}
        failures: list[Failure] = []
        for message in messages:
            names = message.batchers or ((self._default.name,) if self._default else ("default",))
            unknown = [name for name in names if name not in self._batchers]
            if unknown:
                failures.append(self._lost(message, unknown[0]))
            elif len(names) == 1:
                routed.setdefault(names[0], []).append(message)
            else:
                joint = Joint(message, len(names))
                for name in names:
                    routed.setdefault(name, []).append(branch(message, joint))
        for name, part in routed.items():
            self._batchers[name].put(part, False)
        self._disposal.put(failures)

    def _lost(self, message: Message[Any], name: str) -> Failure:
        known = ", ".join(repr(known) for known in self._batchers)
        failure = Failure(
            message, f"there is no batcher named {shown(name)}; there are {known}", retry=False
        )
        failure.phase, failure.stage, failure.attempts = "process", self._stage, message.attempt
        return failure
