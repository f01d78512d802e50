"""Where batches are published to: `pipeline.sink(name, sink, ...)` is a batcher over a Sink."""

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
    """A place that batches are written to. What it needs in a run is opened by `writer`."""

    @abstractmethod
    def writer(self, context: RunContext) -> AbstractAsyncContextManager[Write]:
        """Open the sink for one run.

        The function it gives returns once the batch is safe, and fails messages with
        `message.fail` or the whole batch by raising.
        """

    def writes(self) -> Sequence[str]:
        """The streams that it writes into; one that is also a source is warned of."""
        return ()
