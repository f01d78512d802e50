"""Looks at one chunk of a stream: where an offset specification leads to, on any server version."""

from __future__ import annotations

import anyio

from flowstream.errors import ConnectionClosed, StreamNotAvailable
from flowstream.protocol import (
    Chunk,
    Deliver,
    Key,
    Metadata,
    MetadataResponse,
    OffsetKind,
    OffsetSpec,
    Response,
    StreamStats,
    StreamStatsResponse,
    Subscribe,
    Unsubscribe,
)

from .codes import check
from .connection import ClientConnection
from .core import Core


class _Probe:
    """A subscription that keeps the first chunk it gets."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.chunk: Chunk | None = None

    def delivered(self, deliver: Deliver) -> None:
        if self.chunk is None:
            self.chunk = Chunk.parse(deliver.chunk)

    def credit_refused(self, code: int) -> None:
        """A probe gives no credit."""

    def update(self, correlation_id: int, active: bool) -> None:
        """A probe is not a single active consumer."""

    def metadata_changed(self, code: int) -> None:
        """The request that follows tells."""

    def connection_lost(self, error: ConnectionClosed) -> None:
        """The request that is waited for raises it."""


async def probe(core: Core, stream: str, offset: OffsetSpec) -> Chunk | None:
    """The chunk that a subscription at `offset` begins with now; None when there is none yet.

    A stream that holds nothing but stored offsets has none. Raises StreamNotAvailable where a new
    leader does not know yet what is committed (from 3.11 on, where statistics tell).
    """
    chunk, doubtful = await _look(core, stream, offset)
    if doubtful:  # either only offsets are stored there, or it was committed just now
        chunk, _ = await _look(core, stream, offset)
    return chunk


async def _look(core: Core, stream: str, offset: OffsetSpec) -> tuple[Chunk | None, bool]:
    """One subscription's first chunk, and whether there may be one though none came.

    Brokers send what there is before they look at the next command, so the answer to any request
    after Subscribe proves that nothing was there.
    """
    node = (await core.locate(stream)).for_writer()
    user = _Probe(stream)
    place = await core.consuming.enter(node, user)
    connection = place.connection
    try:
        answer = await connection.request(
            lambda c: Subscribe(c, place.id, stream, offset, 1, {}), Response
        )
        check(answer.code, f'read "{stream}"', stream=stream)
        if user.chunk is None:
            await connection.request(lambda c: Metadata(c, (stream,)), MetadataResponse)
        doubtful = False
        if user.chunk is None and offset.kind in (OffsetKind.FIRST, OffsetKind.LAST):
            doubtful = await _has_committed(connection, stream)
        return user.chunk, doubtful and user.chunk is None
    finally:
        with anyio.CancelScope(shield=True):
            if connection.usable:
                connection.send(Unsubscribe(0, place.id))
            await core.consuming.leave(place)


async def _has_committed(connection: ClientConnection, stream: str) -> bool:
    if not connection.supports(Key.STREAM_STATS):
        return False
    answer = await connection.request(lambda c: StreamStats(c, stream), StreamStatsResponse)
    check(answer.code, f'read "{stream}"', stream=stream)
    values = dict(answer.stats)
    if values.get("first_chunk_id", -1) < 0:
        return False
    if values.get("committed_chunk_id", -1) < 0:
        raise StreamNotAvailable(
            f'the leader of "{stream}" does not know yet what is committed; try again',
            stream=stream,
        )
    return True
