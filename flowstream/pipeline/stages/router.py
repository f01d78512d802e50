"""Sends processed messages to their batchers: whole slices, or single messages if routes differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowstream.pipeline.message import Failure, Joint, Message
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.texts import shown


class Router:
    """Sends messages to batchers. Without a route they go to "default", or to the only batcher."""

    def __init__(
        self, batchers: dict[str, Batcher], failure_handler: FailureHandler, stage: str
    ) -> None:
        self._batchers = batchers
        self._failure_handler = failure_handler
        self._stage = stage
        only = next(iter(batchers)) if len(batchers) == 1 else "default"
        self._default = batchers.get("default") or batchers.get(only)

    @property
    def by_key(self) -> bool:
        return any(batcher.by_key for batcher in self._batchers.values())

    async def put(self, part: Slice[Any], *, decided: bool) -> int:
        """Put messages into their batchers. Returns how many failed, as there is none."""
        if not decided and self._default is not None:
            self._default.put(part, decided=False)
            return 0
        default = (self._default.name,) if self._default else ("default",)
        routed: dict[tuple[str, ...], list[Message[Any]]] = {}
        failures: list[Failure] = []
        for message in part.messages:
            extra = message._extra
            names = default if extra is None else extra.routes or default
            if names in routed:
                routed[names].append(message)
            elif unknown := [name for name in names if name not in self._batchers]:
                failures.append(_lost(message, unknown[0], self._batchers, self._stage))
            elif len(names) == 1:
                routed[names] = [message]
            else:
                joint = Joint(message, len(names))
                for name in names:
                    clone = message._clone(data=message.data, decided=True, joint=joint)
                    routed.setdefault((name,), []).append(clone)
        for (name,), messages in routed.items():
            self._batchers[name].put(Slice.of(messages), decided=True)
        self._failure_handler.put(failures)
        return len(failures)


class End:
    """Settles processed messages: a pipeline without batchers has finished with them."""

    by_key = False

    def __init__(
        self, ack_tracker: AckTracker, failure_handler: FailureHandler, stage: str
    ) -> None:
        self._ack_tracker = ack_tracker
        self._failure_handler = failure_handler
        self._stage = stage

    async def put(self, part: Slice[Any], *, decided: bool) -> int:
        """Settle messages. One with a route fails: it would not come where the handler sent it.

        Returns how many failed.
        """
        routed: list[Message[Any]] = []
        if decided and (routed := [message for message in part.flagged if message.batchers]):
            self._failure_handler.put(
                [_lost(message, message.batchers[0], (), self._stage) for message in routed]
            )
            part = Slice.of([message for message in part.messages if not message.batchers])
        await self._ack_tracker.settle(part, "ok")
        return len(routed)


def _lost(message: Message[Any], name: str, known: Iterable[str], stage: str) -> Failure:
    """The failure of a message that is routed to a batcher that does not exist."""
    there = ", ".join(map(repr, known))
    failure = Failure(
        message,
        f"there is no batcher named {shown(name)}; "
        + (f"there are {there}" if there else "the pipeline has none"),
        retry=False,
    )
    failure.phase, failure.stage, failure.attempts = "process", stage, message.attempt
    return failure
