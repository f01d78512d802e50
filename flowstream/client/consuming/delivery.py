"""What a consumer hands over: the messages of one chunk, trimmed, filtered and checked."""

from __future__ import annotations

from collections.abc import Sequence

from flowstream.client.options import Match
from flowstream.protocol import Chunk


class Delivery:
    """Messages of one chunk, in order.

    `bodies` are raw; `offset` is that of the first one, `offsets` those of all. `timestamp` is when
    the chunk was written, in milliseconds since 1970. `committed_chunk_id` is the broker's newest
    chunk at the time of sending (None before 3.11). `bytes` is the size of the whole chunk, `lost`
    how many offsets before these messages retention removed (on_truncated="skip").
    """

    __slots__ = (
        "bodies",
        "bytes",
        "chunk_id",
        "committed_chunk_id",
        "lost",
        "offset",
        "offsets",
        "stream",
        "timestamp",
    )

    def __init__(
        self,
        stream: str,
        offsets: Sequence[int],
        bodies: list[bytes],
        chunk: Chunk,
        committed_chunk_id: int | None,
        *,
        lost: int = 0,
    ) -> None:
        self.stream = stream
        self.lost = lost
        self.offset = offsets[0]
        self.offsets = offsets
        self.bodies = bodies
        self.timestamp = chunk.timestamp
        self.chunk_id = chunk.offset
        self.committed_chunk_id = committed_chunk_id
        self.bytes = len(chunk.data)

    def __len__(self) -> int:
        return len(self.bodies)

    def __repr__(self) -> str:
        return f"<delivery of {len(self.bodies)} messages of {self.stream!r} at {self.offset}>"


def make_delivery(
    stream: str,
    chunk: Chunk,
    start: int,
    committed_chunk_id: int | None,
    match: Match | None,
    *,
    lost: int = 0,
) -> Delivery | None:
    """The messages of a chunk from offset `start` on that match; None when there are none.

    Raises ChecksumMismatch or ProtocolError for a damaged chunk.
    """
    chunk.verify()
    bodies = chunk.bodies()
    first = chunk.offset
    if first < start:
        del bodies[: start - first]
        first = start
    offsets: Sequence[int] = range(first, first + len(bodies))
    if match is not None:
        kept = [(offset, body) for offset, body in zip(offsets, bodies, strict=True) if match(body)]
        offsets, bodies = [offset for offset, _ in kept], [body for _, body in kept]
    return (
        Delivery(stream, offsets, bodies, chunk, committed_chunk_id, lost=lost) if bodies else None
    )
