"""Administration by an environment: streams, super streams and stored offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flowstream.checks import MAX_NAME, check_name, check_stream, check_text
from flowstream.errors import (
    NotSupported,
    StreamDoesNotExist,
)
from flowstream.protocol import (
    Address,
    Code,
    CreateStream,
    CreateSuperStream,
    DeleteStream,
    DeleteSuperStream,
    Key,
    Metadata,
    MetadataResponse,
    OffsetSpec,
    Response,
    StreamStats,
    StreamStatsResponse,
)
from flowstream.schema import make, takes

from .connecting.connection import raise_for_code
from .connecting.locator import StreamNodes, stream_nodes
from .connecting.manager import ConnectionManager
from .connecting.partitions import read_partitions, read_route
from .consuming.lag import LagProbe
from .consuming.options import ConsumerOptions, Match, Offset, offset_spec
from .consuming.probe import find_ends, probe, resolve
from .consuming.tracking import OffsetStore
from .creating import create, wait_for_leaders, wait_for_partitions
from .stream_options import CreateStreamArguments, CreateSuperStreamArguments


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """The first offset that a stream retains and its newest chunk; both None if it is empty.

    `committed_chunk_id` is the offset at which the newest committed chunk begins. `values` has all
    statistics of the server under its own names.
    """

    first_offset: int | None
    committed_chunk_id: int | None
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The node of the locator connection, and what was negotiated with it.

    `properties` are the node's (product, version and others); `advertised` is the address that it
    advertises; `commands` has the highest version of every command that it supports, and is empty
    below RabbitMQ 3.11. `frame_max` is in bytes and `heartbeat` in seconds; 0 means no limit.
    """

    address: Address
    advertised: Address | None
    properties: Mapping[str, str]
    frame_max: int
    heartbeat: int
    commands: Mapping[Key, int]


class Administration:
    """The methods of an environment that manage streams, super streams and stored offsets."""

    _manager: ConnectionManager

    @property
    def _open(self) -> ConnectionManager:
        """The connections; raises if the environment is not open on this event loop."""
        self._manager.check()
        return self._manager

    def _asks(self, **names: object) -> ConnectionManager:
        """As `_open`, for a request about these names: raises ConfigurationError for one that
        cannot be a name."""
        for argument, name in names.items():
            check_name(argument, name)
        return self._open

    def _offsets(self, reference: str, stream: str) -> OffsetStore:
        return OffsetStore(self._asks(reference=reference, stream=stream))

    async def server_info(self) -> ServerInfo:
        """The node that answers, and what was negotiated in the handshake."""
        wire = (connection := await self._open.locator.get()).wire
        known = {int(key) for key in Key}
        return ServerInfo(
            connection.address,
            wire.advertised,
            dict(wire.peer_properties),
            wire.frame_max,
            wire.heartbeat,
            {Key(key): entry.maximum for key, entry in wire.versions.items() if key in known},
        )

    # --- streams --------------------------------------------------------------------------------

    @takes(CreateStreamArguments)
    async def create_stream(self, *arguments: Any, **values: Any) -> None:
        """Creates a stream. `max_age` is a timedelta, or a string such as "12h" or "7D".

        Raises StreamAlreadyExists, or PreconditionFailed if it exists with other arguments. With
        `exist_ok` an existing stream with the same arguments is accepted, also one that another
        process is creating: this waits until it has a leader, for `request_timeout` at most.
        """
        options = make(CreateStreamArguments, arguments, values)
        name = options.name
        check_stream("name", name, self._manager.virtual_host)
        made = options.arguments()
        created = await create(
            self._open,
            lambda c: CreateStream(c, name, made),
            f'create stream "{name}"',
            name,
            exist_ok=options.exist_ok,
        )
        if not created:
            await wait_for_leaders(self._open, [name])

    async def delete_stream(self, name: str, *, missing_ok: bool = False) -> None:
        """Deletes a stream with its messages and stored offsets; raises StreamDoesNotExist.

        A name that is too long for a stream raises ConfigurationError: RabbitMQ would retry the
        deletion endlessly.
        """
        check_stream("name", name, self._manager.virtual_host)
        connection = await self._open.locator.get()
        answer = await connection.request(lambda c: DeleteStream(c, name), Response)
        if answer.code == Code.STREAM_DOES_NOT_EXIST and missing_ok:
            return
        raise_for_code(answer.code, f'delete stream "{name}"', stream=name)

    async def stream_exists(self, name: str) -> bool:
        """Whether the stream exists, also while it has no leader."""
        manager = self._asks(name=name)
        answer = await manager.locator.request(lambda c: Metadata(c, (name,)), MetadataResponse)
        if any(entry.code == Code.STREAM_NOT_AVAILABLE for entry in answer.streams):
            return True
        try:
            stream_nodes(answer, name)
        except StreamDoesNotExist:
            return False
        return True

    async def metadata(self, name: str) -> StreamNodes:
        """The nodes of the stream's leader and replicas; raises StreamDoesNotExist."""
        return await self._asks(name=name).locate(name)

    async def stream_stats(self, name: str) -> StreamStatistics:
        """Where the stream begins and ends; below RabbitMQ 3.11 its messages are read for it."""
        manager = self._asks(name=name)
        connection = await manager.locator.get()
        if not connection.supports(Key.STREAM_STATS):
            first, newest = await find_ends(manager, connection, name)
            return StreamStatistics(first, newest, {})
        answer = await manager.locator.request(lambda c: StreamStats(c, name), StreamStatsResponse)
        raise_for_code(answer.code, f'read the statistics of "{name}"', stream=name)
        values = dict(answer.stats)
        return StreamStatistics(
            _or_none(values.get("first_chunk_id")),
            _or_none(values.get("committed_chunk_id")),
            values,
        )

    async def last_offset(self, stream: str) -> int | None:
        """The offset of the stream's last message; None if it has no message."""
        chunk = await probe(self._asks(stream=stream), stream, OffsetSpec.last())
        return chunk.offset + chunk.records - 1 if chunk else None

    def lag_probe(
        self,
        stream: str,
        *,
        filter_values: Sequence[str] = (),
        match: Match | None = None,
        match_unfiltered: bool = False,
    ) -> LagProbe:
        """Measures repeatedly, at little cost, how many messages the stream has behind an offset.

        With a filter only the messages that match count; for its options see `consumer`.
        """
        options = ConsumerOptions(
            filter_values=filter_values, match=match, match_unfiltered=match_unfiltered
        )
        return LagProbe(self._asks(stream=stream), stream, options.filters(), match)

    async def resolve_offset(self, stream: str, offset: Offset) -> int:
        """The offset at which a consumer would begin now: from the server (4.3), or by reading."""
        return await resolve(self._asks(stream=stream), stream, offset_spec(offset))

    # --- stored offsets -------------------------------------------------------------------------

    async def query_offset(self, reference: str, stream: str) -> int | None:
        """The offset stored under the reference, which is the last settled one.

        -1 means that offset 0 is not settled yet, None that nothing is stored.
        """
        return await self._offsets(reference, stream).query(reference, stream)

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        """The offset behind which a reader continues.

        As `query_offset`, but -1 also if it began at offset 0 (`store_beginning`) and has stored
        nothing since.
        """
        return await self._offsets(reference, stream).query_beginning(reference, stream)

    async def store_beginning(self, reference: str, stream: str) -> None:
        """Records that a reader began at offset 0 and has settled nothing yet.

        `query_offset` still returns None. If retention removes messages before an offset is stored,
        `query_beginning` reveals the loss. Raises CommitNotVerified.
        """
        await self._offsets(reference, stream).store_beginning(reference, stream)

    async def store_offset(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        """Stores the last settled offset; -1 means that offset 0 is not settled yet.

        Brokers do not answer, so the offset can be lost silently (see `store_offset_verified`).
        They drop it when retention has passed it. `keep` stores a second copy that retention does
        not reach. Use it for references that are used for long, as those of pipelines: brokers keep
        the copy until `forget_offset` is called.
        """
        await self._offsets(reference, stream).store(reference, stream, offset, keep=keep)

    async def store_offset_verified(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        """Stores an offset and reads it back; raises CommitNotVerified if that fails."""
        await self._offsets(reference, stream).store_verified(reference, stream, offset, keep=keep)

    async def claim_reference(self, reference: str, stream: str) -> int | None:
        """Claims the reference for this process: stores a random number and returns it.

        While `reference_claim` returns the same number, no other process has claimed the reference
        since. Returns None if the reference is too long. Brokers do not answer.
        """
        return await self._offsets(reference, stream).claim(reference, stream)

    async def reference_claim(self, reference: str, stream: str) -> int | None:
        """The number of the last claim of the reference; None if there is none."""
        return await self._offsets(reference, stream).claimed(reference, stream)

    async def forget_offset(self, reference: str, stream: str) -> None:
        """Forgets a reference: `query_offset` returns None until an offset is stored again.

        Brokers have no command that deletes a stored offset. They drop it when retention has
        removed messages.
        """
        await self._offsets(reference, stream).forget(reference, stream)

    # --- super streams --------------------------------------------------------------------------

    @takes(CreateSuperStreamArguments)
    async def create_super_stream(self, *arguments: Any, **values: Any) -> None:
        """Creates a super stream: a stream for each partition, and their bindings.

        `partitions` is their number (they are named NAME-0, NAME-1, ... and routed to by hash), or
        their routing keys (they are named NAME-KEY). With `exist_ok` an existing super stream is
        accepted, whatever partitions it has. Below RabbitMQ 3.13 it raises NotSupported, which
        names another way.
        """
        options = make(CreateSuperStreamArguments, arguments, values)
        name, keys = options.name, options.keys
        streams = tuple(f"{name}-{key}" for key in keys)
        for stream in streams:
            check_stream("partition", stream, self._manager.virtual_host)
        if not (await self._open.locator.get()).supports(Key.CREATE_SUPER_STREAM):
            raise NotSupported(
                "creating super streams over the stream protocol needs RabbitMQ 3.13 or later; "
                f"on this server run `rabbitmq-streams add_super_stream {name} --partitions "
                f"{len(keys)}` (3.11 and later), or declare a direct exchange with bindings that "
                "carry x-stream-partition-order"
            )
        created = await create(
            self._open,
            lambda c: CreateSuperStream(c, name, streams, keys, options.arguments()),
            f'create super stream "{name}"',
            name,
            exist_ok=options.exist_ok,
        )
        if not created:
            found = await wait_for_partitions(self._open, name, streams)
            await wait_for_leaders(self._open, found)

    async def delete_super_stream(self, name: str, *, missing_ok: bool = False) -> None:
        """Deletes a super stream with all its partitions; below RabbitMQ 3.13 NotSupported."""
        connection = await self._asks(name=name).locator.get()
        if not connection.supports(Key.DELETE_SUPER_STREAM):
            raise NotSupported(
                "deleting super streams over the stream protocol needs RabbitMQ 3.13 or later; on "
                f"this server run `rabbitmq-streams delete_super_stream {name}` (3.11 and later), "
                "or delete its exchange and the streams of its partitions"
            )
        answer = await connection.request(lambda c: DeleteSuperStream(c, name), Response)
        if answer.code == Code.STREAM_DOES_NOT_EXIST and missing_ok:
            return
        raise_for_code(answer.code, f'delete super stream "{name}"', stream=name)

    async def partitions(self, super_stream: str) -> list[str]:
        """The streams of a super stream, in the server's order; raises StreamDoesNotExist."""
        return await read_partitions(self._asks(super_stream=super_stream), super_stream)

    async def routing_of(self, super_stream: str) -> Literal["hash", "key"]:
        """How keys select a partition: "hash" if the super stream was created with a number of
        partitions (its first one is then bound with "0"), "key" if with routing keys."""
        partitions = await self.partitions(super_stream)
        return "hash" if await self.route("0", super_stream) == partitions[:1] else "key"

    async def route(self, routing_key: str, super_stream: str) -> list[str]:
        """The partitions that are bound with the routing key; empty if there are none."""
        check_text("routing_key", routing_key, 0, MAX_NAME)
        return await read_route(self._asks(super_stream=super_stream), routing_key, super_stream)


def _or_none(value: int | None) -> int | None:
    return None if value is None or value < 0 else value
