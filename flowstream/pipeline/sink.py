"""Destinations of batches: `pipeline.sink(name, sink, ...)` is a batcher that writes to a Sink."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowstream.pipeline.batch import Batch
    from flowstream.pipeline.context import RunContext

Write = Callable[["Batch[Any]"], Awaitable[None]]


class Sink(ABC):
    """A destination that batches are written to. `writer` opens what it needs in a run."""

    @abstractmethod
    def writer(self, context: RunContext) -> AbstractAsyncContextManager[Write]:
        """Open the sink for one run.

        The function that it yields returns once the batch is written. It fails single messages
        with `message.fail`, or the whole batch by raising.
        """

    def writes(self) -> Sequence[str]:
        """The streams that it writes to. If one is also a source, a warning is logged."""
        return ()
