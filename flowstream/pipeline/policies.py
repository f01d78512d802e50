"""What happens to a message that failed: tried again, then handed to a policy.

`Retry` is pure: it tells the delay before the next attempt. A policy is a frozen value; what it
needs while a pipeline runs (a publisher, counters) is opened by `disposer`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from flowstream.backoff import Backoff
from flowstream.schema import check, listing, whole

if TYPE_CHECKING:
    from flowstream.pipeline.context import RunContext
    from flowstream.pipeline.message import Failure


@listing
@dataclass(frozen=True, slots=True)
class Retry:
    """Try a failed message or batch again, `attempts` times in all, waiting `backoff` between.

    A waiting message holds up nothing but the messages of its own partition (`partition_by`, or
    the whole stage at concurrency 1), whose order is kept. A body that does not decode, and
    `message.fail(..., retry=False)`, are not tried again.
    """

    attempts: Annotated[int, whole(1, unit="attempts"), "tries in all, the first included"] = 3
    backoff: Annotated[Backoff, "the delays between them"] = Backoff()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        check(self, "Retry")

    def delay(self, attempt: int) -> float | None:
        """The seconds before the next try after `attempt` failed; None: no more tries."""
        if attempt >= self.attempts:
            return None
        return self.backoff.delay(attempt, random.random())


class OpenPolicy(ABC):
    """A failure policy at work in one run."""

    @abstractmethod
    async def handle(self, failures: Sequence[Failure]) -> str:
        """Dispose of the messages and name the outcome they settle with.

        "halted" leaves them unsettled and stops the pipeline, and so does any exception.
        """


class FailurePolicy(ABC):
    """What finally happens to a failed message. A value: equal policies share a disposer."""

    @abstractmethod
    def open_policy(self, context: RunContext) -> AbstractAsyncContextManager[OpenPolicy]:
        """Open what the policy needs for one run."""

    def writes(self) -> Sequence[str]:
        """The streams that it writes what failed into: none of them may be a source."""
        return ()


class _Always(OpenPolicy):
    def __init__(self, outcome: str) -> None:
        self._outcome = outcome

    async def handle(self, failures: Sequence[Failure]) -> str:
        return self._outcome


@dataclass(frozen=True, slots=True)
class Halt(FailurePolicy):
    """Stop the pipeline with `Halted`; the committed offset stays before the message."""

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        yield _Always("halted")


@dataclass(frozen=True, slots=True)
class Drop(FailurePolicy):
    """Give the failed message up: it settles as discarded, and the pipeline goes on.

    What a handler leaves out on purpose (`message.drop()`) settles as dropped instead.
    """

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        yield _Always("discarded")
