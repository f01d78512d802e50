"""Reads a few chunks of a stream to find its ends and to resolve offsets, on any server version."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from flowstream.client.connecting.connection import ClientConnection, raise_for_code
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.errors import ConnectionClosed, StreamNotAvailable
from flowstream.protocol import (
    Chunk,
    Deliver,
    Key,
    Metadata,
    MetadataResponse,
    OffsetKind,
    OffsetSpec,
    ResolveOffsetSpec,
    ResolveOffsetSpecResponse,
    Response,
    StreamStats,
    StreamStatsResponse,
    Subscribe,
    Unsubscribe,
)

OWN_RECORDS = 100
"""Below RabbitMQ 3.11 the broker does not tell whether the offsets before the first message were
removed, or are taken by stored offsets. Up to this number they count as stored offsets."""


class _Probe:
    """A subscription that collects as many chunks as it has credit for."""

    def __init__(self, stream: str, credit: int) -> None:
        self.stream = stream
        self.credit = credit
        self.chunks: list[Chunk] = []

    def delivered(self, deliver: Deliver) -> None:
        if len(self.chunks) < self.credit:
            self.chunks.append(Chunk.parse(deliver.chunk))

    def credit_refused(self, code: int) -> None:
        """Does not happen: a probe returns no credit."""

    def update(self, correlation_id: int, active: bool) -> None:
        """Does not happen: a probe is not a single active consumer."""

    def metadata_changed(self, code: int) -> None:
        """Ignored: the next request raises the error."""

    def connection_lost(self, error: ConnectionClosed) -> None:
        """Ignored: the pending request raises the error."""


async def probe(
    manager: ConnectionManager,
    stream: str,
    offset: OffsetSpec,
    properties: Mapping[str, str] | None = None,
) -> Chunk | None:
    """The first chunk of a subscription at `offset`; None if there is none at the moment.

    `properties` select a filter. A stream with nothing but stored offsets has no such chunk. Raises
    StreamNotAvailable if a new leader does not know yet what is committed (from RabbitMQ 3.11 on).
    """
    found = await probe_some(manager, stream, offset, 1, properties)
    return found[0] if found else None


async def probe_some(
    manager: ConnectionManager,
    stream: str,
    offset: OffsetSpec,
    credit: int,
    properties: Mapping[str, str] | None = None,
    *,
    anywhere: bool = False,
) -> list[Chunk]:
    """As `probe`, but the first `credit` chunks, or fewer if there are no more.

    With `anywhere` they are read from any member with an open connection instead of the leader. It
    is cheaper for repeated calls that can use the data of a replica, which may be behind.
    """
    user = _Probe(stream, credit)
    doubtful = await _look(manager, user, offset, properties or {}, anywhere)
    if doubtful:  # there are only stored offsets, or it was committed just now
        await _look(manager, user, offset, properties or {}, anywhere)
    return user.chunks


async def _look(
    manager: ConnectionManager,
    user: _Probe,
    offset: OffsetSpec,
    properties: Mapping[str, str],
    anywhere: bool,
) -> bool:
    """Collects the chunks; returns whether there may be some although none arrived.

    Brokers send all that exists before they read the next command. So the answer to a request that
    follows Subscribe proves that there was nothing more.
    """
    manager.probes.add(user)
    try:
        return await _subscribed(manager, user, offset, properties, anywhere)
    finally:
        manager.probes.discard(user)


async def _subscribed(
    manager: ConnectionManager,
    user: _Probe,
    offset: OffsetSpec,
    properties: Mapping[str, str],
    anywhere: bool,
) -> bool:
    stream = user.stream
    nodes = await manager.locate(stream)
    node = manager.consuming.open_at_one_of(nodes.members) if anywhere else None
    registration = await manager.consuming.enter(node or nodes.for_writer(), user)
    connection = registration.connection
    try:
        answer = await connection.request(
            lambda c: Subscribe(c, registration.id, stream, offset, user.credit, properties),
            Response,
        )
        raise_for_code(answer.code, f'read "{stream}"', stream=stream)
        if len(user.chunks) < user.credit:
            await connection.request(lambda c: Metadata(c, (stream,)), MetadataResponse)
        doubtful = False
        if not user.chunks and offset.kind in (OffsetKind.FIRST, OffsetKind.LAST):
            doubtful = await _has_committed(connection, stream)
        return doubtful and not user.chunks
    finally:
        with anyio.CancelScope(shield=True):
            if connection.usable:
                connection.send(Unsubscribe(0, registration.id))
            await manager.consuming.leave(registration)


async def find_first(
    manager: ConnectionManager, connection: ClientConnection, stream: str
) -> int | None:
    """The first offset that the member at this connection retains; None for an empty stream.

    Below RabbitMQ 3.11 it is the offset of the leader's first message: see `OWN_RECORDS`.
    """
    if connection.supports(Key.STREAM_STATS):
        return (await statistics(connection, stream))[0]
    chunk = await probe(manager, stream, OffsetSpec.first())
    if chunk is None:
        return None
    return 0 if chunk.offset <= OWN_RECORDS else int(chunk.offset)


async def find_ends(
    manager: ConnectionManager, connection: ClientConnection, stream: str
) -> tuple[int | None, int | None]:
    """The first retained offset, and the offset at which the newest committed chunk begins."""
    if connection.supports(Key.STREAM_STATS):
        return await statistics(connection, stream)
    last = await probe(manager, stream, OffsetSpec.last())
    return await find_first(manager, connection, stream), None if last is None else last.offset


async def resolve(manager: ConnectionManager, stream: str, spec: OffsetSpec) -> int:
    """The offset at which a consumer would begin now: from the server (4.3), or by reading."""
    if spec.kind is OffsetKind.NEXT:
        return await _end(manager, stream)
    asked = spec.value if spec.kind is OffsetKind.OFFSET else 0
    connection = await manager.locator.get()
    if connection.supports(Key.RESOLVE_OFFSET_SPEC):
        answer = await connection.request(
            lambda c: ResolveOffsetSpec(c, stream, spec, {}), ResolveOffsetSpecResponse
        )
        raise_for_code(answer.code, f'resolve an offset of "{stream}"', stream=stream)
        return max(answer.offset.value, asked)  # the server may return the beginning of the chunk
    end = await _end(manager, stream)  # first, so that a message written meanwhile is not skipped
    chunk = await probe(manager, stream, spec)
    return end if chunk is None else max(int(chunk.offset), asked)


async def _end(manager: ConnectionManager, stream: str) -> int:
    """The offset behind the last message; without messages, the first retained offset."""
    last = await probe(manager, stream, OffsetSpec.last())
    if last is not None:
        return int(last.offset + last.records)
    return await find_first(manager, await manager.locator.get(), stream) or 0


async def statistics(connection: ClientConnection, stream: str) -> tuple[int | None, int | None]:
    """The first retained offset and the beginning of the newest committed chunk (StreamStats)."""
    answer = await connection.request(lambda c: StreamStats(c, stream), StreamStatsResponse)
    raise_for_code(answer.code, f'read "{stream}"', stream=stream)
    values = dict(answer.stats)
    first, newest = values.get("first_chunk_id", -1), values.get("committed_chunk_id", -1)
    return None if first < 0 else first, None if newest < 0 else newest


async def _has_committed(connection: ClientConnection, stream: str) -> bool:
    if not connection.supports(Key.STREAM_STATS):
        return False
    return (await committed(connection, stream))[1] is not None


async def committed(connection: ClientConnection, stream: str) -> tuple[int | None, int | None]:
    """As `statistics`; None and None for an empty stream.

    Raises StreamNotAvailable if a new leader does not know yet what is committed.
    """
    first, newest = await statistics(connection, stream)
    if first is not None and newest is None:
        raise StreamNotAvailable(
            f'the leader of "{stream}" does not know yet what is committed; try again',
            stream=stream,
        )
    return first, newest
