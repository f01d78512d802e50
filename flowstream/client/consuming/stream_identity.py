"""Is a stream still the one that was read, or was it deleted and created again meanwhile? Pure.

A stream has no identity of its own on the wire, and offsets begin again in a new one. So a consumer
that comes back asks for the chunk it read last, and looks at what comes first: the same chunk, the
same stream.
"""

from __future__ import annotations

from enum import Enum

from flowstream.protocol import Chunk, OffsetSpec


class Verdict(Enum):
    """SAME: the chunk that was read last. OTHER: of another stream. FURTHER: read on as usual."""

    SAME = "same"
    OTHER = "other"
    FURTHER = "further"


class Lineage:
    """What is remembered of the chunk that was read last."""

    __slots__ = ("_crc", "_end", "_newest", "_offset", "_timestamp")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing was read: whatever comes is right."""
        self._offset = self._end = self._crc = self._timestamp = self._newest = 0

    def read(self, chunk: Chunk) -> None:
        self._offset = chunk.offset
        self._end = chunk.offset + chunk.records
        self._crc = chunk.crc
        self._timestamp = chunk.timestamp
        self._newest = max(self._newest, chunk.timestamp)

    def start(self) -> OffsetSpec | None:
        """Where to ask a new subscription to begin; None: nothing was read."""
        return OffsetSpec.offset(self._offset) if self._end else None

    def judge(self, first: Chunk) -> Verdict:
        """What the first chunk of a new subscription says.

        One behind the last one follows retention. One before it is what a replica sends that has
        not caught up; newer than all that was read, it is from a new stream.
        """
        if not self._end or first.offset > self._offset:
            return Verdict.FURTHER
        if first.offset + first.records <= self._offset:
            return Verdict.OTHER if first.timestamp > self._newest else Verdict.FURTHER
        same = (self._offset, self._end, self._timestamp, self._crc) == (
            first.offset,
            first.offset + first.records,
            first.timestamp,
            first.crc,
        )
        return Verdict.SAME if same else Verdict.OTHER
