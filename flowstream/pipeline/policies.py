"""What happens to a failed message: it is retried, and then goes to a failure policy.

`Retry` is pure: it computes the delay before the next attempt. A policy is a frozen value; what it
needs in a run (a publisher, counters) is opened by `open_policy`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from flowstream.backoff import Backoff
from flowstream.pipeline.guarantee import Guarantee
from flowstream.schema import check, listing, whole
from flowstream.texts import type_name

if TYPE_CHECKING:
    from flowstream.pipeline.context import RunContext
    from flowstream.pipeline.message import Failure


@listing
@dataclass(frozen=True, slots=True)
class Retry:
    """Try a failed message or batch again, `attempts` times in all, waiting `backoff` between.

    A message that waits delays only the messages of its own partition (`partition_by`, or the
    whole stage at concurrency 1), whose order is kept. A body that does not decode, and
    `message.fail(..., retry=False)`, are not tried again.
    """

    attempts: Annotated[int, whole(1, unit="attempts"), "tries in all, the first included"] = 3
    backoff: Annotated[Backoff, "the delays between them"] = Backoff()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        check(self, "Retry")

    def delay(self, attempt: int) -> float | None:
        """The seconds to wait after attempt number `attempt` failed; None if it was the last."""
        if attempt >= self.attempts:
            return None
        return self.backoff.delay(attempt, random.random())


class OpenPolicy(ABC):
    """A failure policy, opened for one run."""

    @abstractmethod
    async def handle(self, failures: Sequence[Failure]) -> str:
        """Decide about failed messages, and return the outcome that they settle with.

        "halted" leaves them unsettled and stops the pipeline, and so does any exception.
        """


class FailurePolicy(ABC):
    """What finally happens to a failed message. A value: equal policies are opened once.

    If `ordered` is True, it gets the failures of a source partition in its order, and none before
    all earlier messages are decided: given to it, or settled.
    """

    @property
    def ordered(self) -> bool:
        return False

    @abstractmethod
    def open_policy(self, context: RunContext) -> AbstractAsyncContextManager[OpenPolicy]:
        """Open what the policy needs for one run."""

    def writes(self) -> Sequence[str]:
        """The streams that failed messages are written to. None of them may be a source."""
        return ()

    def record(self, pipeline: str, name: str) -> str | None:
        """As `Sink.record`, for the policy of a pipeline; `name` is that of the option."""
        return None

    def guarantee(self) -> Guarantee:
        """How often the policy is applied to a failed message."""
        return Guarantee(
            "at least once", f"a crash may apply {type_name(self)} to the same message again"
        )


class _Always(OpenPolicy):
    def __init__(self, outcome: str) -> None:
        self._outcome = outcome

    async def handle(self, failures: Sequence[Failure]) -> str:
        return self._outcome


@dataclass(frozen=True, slots=True)
class Halt(FailurePolicy):
    """Stop the pipeline with `Halted`; the committed offset stays before the message."""

    def guarantee(self) -> Guarantee:
        return Guarantee("at least once", "the run ends, and the next one gets the message again")

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        yield _Always("halted")


@dataclass(frozen=True, slots=True)
class Drop(FailurePolicy):
    """Give up the failed message: it settles as discarded, and the pipeline continues.

    A message that a handler filters out (`message.drop()`) settles as dropped instead.
    """

    def guarantee(self) -> Guarantee:
        return Guarantee(
            "at most once",
            "a failed message is given up",
            "keep it: on_failure=DeadLetter(...) publishes it, and Halt() stops before it",
        )

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        yield _Always("discarded")
