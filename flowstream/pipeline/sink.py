"""Destinations of batches: `pipeline.sink(name, sink, ...)` is a batcher that writes to a Sink."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from flowstream.pipeline.deciders.rolling import Rolling
from flowstream.pipeline.guarantee import Guarantee
from flowstream.texts import type_name

if TYPE_CHECKING:
    from flowstream.pipeline.batch import Batch
    from flowstream.pipeline.context import RunContext
    from flowstream.pipeline.message import Message

Write = Callable[["Batch[Any]"], Awaitable[None]]


class Turn(ABC):
    """The turn of a batch at a sink that is `ordered`: one batch after the other is written."""

    @abstractmethod
    def pass_on(self) -> None:
        """Let the next batch begin: what this one writes is on its way, and in its place."""

    @abstractmethod
    def again(self, messages: Sequence[Message[Any]]) -> None:
        """Give these messages to `write` again, once those of the batch that failed are settled."""


OrderedWrite = Callable[["Batch[Any]", Turn], Awaitable[None]]


class Sink(ABC):
    """A destination that batches are written to. `writer` opens what it needs in a run.

    If `ordered` is True, the messages of each source partition come in the order of their offsets,
    and none before all earlier ones are decided for this sink: written by it, or settled. Batches
    have no keys then, and what the sink raises ends the run, because no later message may be
    written instead.
    """

    ordered: bool = False

    @abstractmethod
    def writer(self, context: RunContext) -> AbstractAsyncContextManager[Write | OrderedWrite]:
        """Open the sink for one run.

        The function that it yields returns once the batch is written. It fails single messages
        with `message.fail`, or the whole batch by raising. If the sink is `ordered`, it is called
        with the `Turn` of the batch, too.
        """

    def writes(self) -> Sequence[str]:
        """The streams that it writes to. If one is also a source, a warning is logged."""
        return ()

    def record(self, pipeline: str, name: str) -> str | None:
        """Where it records which offsets it has written, as the sink `name` of a pipeline; None if
        nowhere. One pipeline must not have two such ends with one record: each would leave out
        what the other has written."""
        return None

    @property
    def rolling(self) -> Rolling | None:
        """How batches are closed, of a sink that needs them large; None: as those of others."""
        return None

    def guarantee(self) -> Guarantee:
        """How often a message is in the destination, from a source that stores offsets."""
        return Guarantee(
            "at least once",
            f"{type_name(self)} may write a message again after a crash or a retry",
        )
