"""What an exactly-once sink keeps of what it has written, as commands see it.

A sink with these methods is shown by `flowstream sinks list`, its place is made by `init`, and
`reset` makes it forget. All of them block, and none needs the broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from flowstream.connectors.done_ranges import DoneRanges


@runtime_checkable
class KeepsRecord(Protocol):
    """A sink that keeps which offsets are written, by reference and stream."""

    @property
    def destination(self) -> str:
        """Where it writes to, without secrets."""

    def record_reference(self, pipeline: str, batcher: str) -> str:
        """The reference that it keeps its record under, as a sink of a pipeline."""

    def initialize(self) -> None:
        """Make what it writes to, where that does not exist, and check it.

        Raises ConfigurationError where the place cannot be used, and SinkFailed where it cannot be
        reached.
        """

    def written(self, reference: str) -> Mapping[str, DoneRanges] | None:
        """The offsets that are written, by stream; None before `initialize` or a first run."""

    def forget(self, reference: str, stream: str) -> None:
        """Forget what was written of the stream. The written messages stay."""
