"""An acknowledger that tests of your own producers can wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowstream.pipeline import Acknowledger, Message, Signal


class CallerAcknowledger(Acknowledger):
    """Keeps (message, outcome) of everything that is settled, in the order it was.

    With `inner`, that acknowledger is called first, and its exceptions are raised.

        partition = intake.open("jobs", commits=False, acknowledger=caller)
        ...
        await caller.wait_for(3)
    """

    def __init__(self, inner: Acknowledger | None = None) -> None:
        self.acknowledged: list[tuple[Message[Any], str]] = []
        self._inner = inner
        self._changed = Signal()

    async def acknowledge(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        if self._inner is not None:
            await self._inner.acknowledge(messages, outcome)
        self.acknowledged.extend((message, outcome) for message in messages)
        self._changed.notify()

    async def wait_for(self, count: int) -> list[tuple[Message[Any], str]]:
        """Wait until that many are settled; returns all that are."""
        await self._changed.until(lambda: len(self.acknowledged) >= count)
        return self.acknowledged
