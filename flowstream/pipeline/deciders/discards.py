"""Messages that a run was started to discard: they settle without being handled. Pure.

A message is named by its stream (or partition) and offset, for the whole run: if it is delivered
again, after a hand-over, it is discarded again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from flowstream.errors import ConfigurationError
from flowstream.pipeline.delivery import Delivery

Place = tuple[str, int]
"""A message's stream and offset."""

REASON = "discarded on request"
"""The reason that events and metrics give."""
HIGHEST = 2**62
"""No stream has offsets that high."""


def parse_place(value: Any, path: str) -> Place:
    """`"STREAM@OFFSET"`, or a pair of both; raises ConfigurationError that begins with `path`."""
    if isinstance(value, str):
        stream, at, digits = value.rpartition("@")
        if at and stream and digits.isascii() and digits.isdecimal() and len(digits) < 20:
            value = (stream, int(digits))
    match value:
        case (str(stream), int(offset)) if (
            stream and not isinstance(offset, bool) and 0 <= offset < HIGHEST
        ):
            return stream, offset
    raise ConfigurationError(
        f"{path}: expected STREAM@OFFSET such as orders@42 (of a super stream the name of the "
        f"partition, such as orders-1@42), got {value!r:.300}"
    )


def parse_places(values: Any, path: str) -> tuple[Place, ...]:
    """Every place of an iterable, or the one place that `values` is."""
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, Iterable):
        raise ConfigurationError(
            f'{path}: expected messages such as ["orders@42"], got {values!r:.300}'
        )
    return tuple(dict.fromkeys(parse_place(value, path) for value in values))


def named(place: Place) -> str:
    """A place as text: `orders@42`."""
    return f"{place[0]}@{place[1]}"


class Discards:
    """The messages that one run discards, and which of them have come."""

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self.places: tuple[Place, ...] = tuple(places)
        self.met: dict[Place, None] = {}
        self._offsets: dict[str, list[int]] = {}
        self._partitions: dict[str, tuple[Any, int | None]] = {}
        for stream, offset in sorted(self.places):
            self._offsets.setdefault(stream, []).append(offset)

    def check(self, pipeline: str, streams: Sequence[str] | None) -> None:
        """Raise ConfigurationError for a stream that the pipeline does not read; `streams` are
        those that it reads, None if they are not known."""
        unknown = [] if streams is None else [s for s in self._offsets if s not in streams]
        if unknown:
            wrong = named((unknown[0], self._offsets[unknown[0]][0]))
            known = ", ".join(map(repr, sorted(streams or ()))) or "no stream"
            raise ConfigurationError(
                f"discard {wrong!r}: pipeline {pipeline!r} does not read the stream "
                f"{unknown[0]!r}; it reads {known}"
            )

    def opened(self, partition: Any, committed: int | None) -> bool:
        """Whether messages of the partition, which begins behind `committed`, are discarded."""
        if partition.stream not in self._offsets:
            return False
        _, before = self._partitions.get(partition.stream, (None, committed))
        self._partitions[partition.stream] = partition, before
        return True

    def indexes(self, delivery: Delivery) -> list[int]:
        """The indexes of the messages of a delivery to discard; they count as met."""
        stream = delivery.partition.stream
        offsets = self._offsets[stream]
        found: list[int] = []
        low, high = bisect_left(offsets, delivery.base), bisect_right(offsets, delivery.last)
        for offset in offsets[low:high]:
            index = delivery.index(offset)
            if index is not None:
                found.append(index)
                self.met[stream, offset] = None
        return found

    def unmet(self) -> dict[Place, str]:
        """The messages that did not come in this run, each with the reason if it is known."""
        return {place: self._why(*place) for place in self.places if place not in self.met}

    def _why(self, stream: str, offset: int) -> str:
        partition, committed = self._partitions.get(stream, (None, None))
        if partition is None:
            return "nothing was read from this stream"
        if committed is not None and offset <= committed:
            return f"it was settled before this run, whose committed offset was {committed}"
        if not partition.end:
            return "no message came from this stream"
        if offset < partition.first:
            return f"the first message that came has offset {partition.first}"
        if offset < partition.end:
            return "the stream has no such message, or the filter left it out"
        if partition.tail is not None and offset > partition.tail:
            return f"the stream ends at offset {partition.tail}"
        return f"the run ended before it, at offset {partition.end - 1}"
