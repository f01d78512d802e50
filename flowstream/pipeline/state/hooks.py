"""What a run calls on its way, for helpers of tests that want to see it.

A run that has hooks goes the same way as one that has none: nothing is put around producers,
handlers or sinks. Everything is called on the event loop, and per message only where hooks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.message import Failure, Message


class RunHooks:
    """Override what you want to see. Each does nothing by default."""

    @property
    def crashed(self) -> bool:
        """Whether the run is to end as a killed process would: it commits nothing any more."""
        return False

    def resumed(self, stream: str, committed: int) -> None:
        """A stream is read from behind its stored offset."""

    def attempted(self, messages: Sequence[Message[Any]]) -> None:
        """The processor was called with each of these messages, or with a slice of them."""

    def batch_begins(self, batch: Batch[Any]) -> Any:
        """A batch goes to its handler or sink; what this returns is given to `batch_ended`."""

    def batch_ended(self, token: Any, error: BaseException | None) -> None:
        """The handler or sink has returned, or raised `error`."""

    def failed(self, failure: Failure) -> None:
        """A message has failed for good, and goes to its policy."""

    def settled(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        """Messages are settled; each message is seen here once."""

    def committed(self, stream: str, offset: int) -> None:
        """An offset was stored."""
