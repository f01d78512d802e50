"""Hooks that a run calls, for test helpers.

A run with hooks works exactly as one without: nothing is wrapped around producers, handlers or
sinks. Hooks are called on the event loop; only a run with hooks calls anything per message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.message import Failure, Message


class RunHooks:
    """Override the hooks that you need. Each does nothing by default."""

    @property
    def crashed(self) -> bool:
        """Whether the run must end like a killed process, without committing anything."""
        return False

    def resumed(self, stream: str, committed: int) -> None:
        """A stream is read from behind its stored offset."""

    def attempted(self, messages: Sequence[Message[Any]]) -> None:
        """The processor was called with each of these messages, or with a slice of them."""

    def batch_begins(self, batch: Batch[Any]) -> Any:
        """A batch goes to its handler or sink. `batch_ended` gets what this returns."""

    def batch_ended(self, token: Any, error: BaseException | None) -> None:
        """The handler or sink has returned, or raised `error`."""

    def failed(self, failure: Failure) -> None:
        """A message has finally failed, and goes to its policy."""

    def settled(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        """Messages are settled. Each message comes here once."""

    def committed(self, stream: str, offset: int) -> None:
        """An offset was stored."""
