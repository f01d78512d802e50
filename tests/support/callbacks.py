"""Callbacks for tests: one that does nothing, and an acknowledger that keeps what was settled."""

from __future__ import annotations

import asyncio

import pytest

from flowstream.pipeline import Acknowledger, Intake, Message, Producer

RAISED = [ValueError("x"), SystemExit(3), asyncio.CancelledError(), BaseExceptionGroup("g", [SystemExit(1)])]  # fmt: skip # noqa: E501
raised = pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)


async def nothing(message: Message[dict]) -> None:
    """Leaves the message as it is."""


class Told(Acknowledger):
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.told: list[int] = []

    async def acknowledge(self, messages, outcome):
        if self.error is not None:
            raise self.error
        self.told.extend(m.offset for m in messages)


class Queue(Producer):
    """A source that is acknowledged message by message."""

    def __init__(self, bodies: list[bytes], acknowledger: Acknowledger) -> None:
        self.bodies = bodies
        self.acknowledger = acknowledger

    async def run(self, intake: Intake) -> None:
        partition = intake.open("queue", acknowledger=self.acknowledger, commits=False)
        await partition.send(self.bodies)
