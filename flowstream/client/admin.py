"""Streams, super streams and stored offsets: what an environment does besides moving messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from flowstream.checks import (
    MAX_NAME,
    check_name,
    check_stream,
    check_text,
    check_whole,
    longest_stream,
)
from flowstream.errors import (
    ConfigurationError,
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
from flowstream.texts import shown

from .connecting.connection import raise_for_code
from .connecting.locator import StreamNodes, stream_nodes
from .connecting.manager import ConnectionManager
from .connecting.partitions import read_partitions, read_route
from .consuming.lag import LagProbe
from .consuming.options import ConsumerOptions, Match, Offset, offset_spec
from .consuming.probe import find_ends, probe, resolve
from .consuming.tracking import OffsetStore

MOST_PARTITIONS = 10_000
LEADER_LOCATORS = ("client-local", "balanced")


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """Where a stream begins and how far it is committed; None for an empty stream.

    `first_offset` is the first retained one; `committed_chunk_id` the offset at which the newest
    committed chunk begins. `values` has whatever else the server tells, under its own names.
    """

    first_offset: int | None
    committed_chunk_id: int | None
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The node that the locating connection is at, and what was agreed with it.

    `properties` are its own (product, version, ...); `advertised` is the address it tells others;
    `commands` has the highest version of every command it speaks, empty below RabbitMQ 3.11.
    Sizes are bytes and times seconds; 0 is no limit.
    """

    address: Address
    advertised: Address | None
    properties: Mapping[str, str]
    frame_max: int
    heartbeat: int
    commands: Mapping[Key, int]


class Administration:
    """The part of an environment that manages what the broker holds."""

    _manager: ConnectionManager

    @property
    def _open(self) -> ConnectionManager:
        """The connections; raises where the environment cannot be used here and now."""
        self._manager.check()
        return self._manager

    async def server_info(self) -> ServerInfo:
        """Who answers, and what was agreed in the handshake."""
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

    async def create_stream(
        self,
        name: str,
        *,
        max_length_bytes: int | None = None,
        max_age: timedelta | str | None = None,
        max_segment_size_bytes: int | None = None,
        filter_size_bytes: int | None = None,
        initial_cluster_size: int | None = None,
        leader_locator: str | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Creates a stream; `max_age` is a timedelta or RabbitMQ's form, such as "12h" or "7D".

        Raises StreamAlreadyExists, or PreconditionFailed where it exists with other arguments;
        with `exist_ok` an existing one is left as it is.
        """
        check_stream("name", name, self._manager.virtual_host)
        arguments = stream_arguments(
            max_length_bytes=max_length_bytes,
            max_age=max_age,
            max_segment_size_bytes=max_segment_size_bytes,
            filter_size_bytes=filter_size_bytes,
            initial_cluster_size=initial_cluster_size,
            leader_locator=leader_locator,
        )
        connection = await self._open.locator.get()
        answer = await connection.request(lambda c: CreateStream(c, name, arguments), Response)
        if answer.code == Code.STREAM_ALREADY_EXISTS and exist_ok:
            return
        raise_for_code(answer.code, f'create stream "{name}"', stream=name)

    async def delete_stream(self, name: str, *, missing_ok: bool = False) -> None:
        """Deletes a stream with its messages and stored offsets; raises StreamDoesNotExist.

        A name that is too long for a stream is refused: RabbitMQ would retry its
        deletion without end.
        """
        if len(name.encode(errors="replace")) > longest_stream(self._manager.virtual_host):
            check_stream("name", name, self._manager.virtual_host)
        connection = await self._open.locator.get()
        answer = await connection.request(lambda c: DeleteStream(c, name), Response)
        if answer.code == Code.STREAM_DOES_NOT_EXIST and missing_ok:
            return
        raise_for_code(answer.code, f'delete stream "{name}"', stream=name)

    async def stream_exists(self, name: str) -> bool:
        answer = await self._open.locator.request(lambda c: Metadata(c, (name,)), MetadataResponse)
        try:
            stream_nodes(answer, name)
        except StreamDoesNotExist:
            return False
        return True

    async def metadata(self, name: str) -> StreamNodes:
        """The nodes of the stream's leader and replicas; raises StreamDoesNotExist."""
        return await self._open.locate(name)

    async def stream_stats(self, name: str) -> StreamStatistics:
        """Where the stream begins and ends; found out by reading where the server is below 3.11."""
        connection = await self._open.locator.get()
        if not connection.supports(Key.STREAM_STATS):
            first, newest = await find_ends(self._open, connection, name)
            return StreamStatistics(first, newest, {})
        answer = await self._open.locator.request(
            lambda c: StreamStats(c, name), StreamStatsResponse
        )
        raise_for_code(answer.code, f'read the statistics of "{name}"', stream=name)
        values = dict(answer.stats)
        return StreamStatistics(
            _or_none(values.get("first_chunk_id")),
            _or_none(values.get("committed_chunk_id")),
            values,
        )

    async def last_offset(self, stream: str) -> int | None:
        """The offset of the stream's last message; None while it is empty."""
        chunk = await probe(self._open, stream, OffsetSpec.last())
        return chunk.offset + chunk.records - 1 if chunk else None

    def lag_probe(
        self,
        stream: str,
        *,
        filter_values: Sequence[str] = (),
        match: Match | None = None,
        match_unfiltered: bool = False,
    ) -> LagProbe:
        """Tells again and again, at little cost, what the stream holds behind an offset.

        With a filter only what it lets through counts; see `consumer` for its options.
        """
        options = ConsumerOptions(
            filter_values=filter_values, match=match, match_unfiltered=match_unfiltered
        )
        return LagProbe(self._open, stream, options.filters(), match)

    async def resolve_offset(self, stream: str, offset: Offset) -> int:
        """The offset at which a consumer would begin now, as the server (4.3) or a look tells."""
        return await resolve(self._open, stream, offset_spec(offset))

    # --- stored offsets -------------------------------------------------------------------------

    async def query_offset(self, reference: str, stream: str) -> int | None:
        """The offset stored under the reference: the last settled one, -1 where not even offset 0
        is; None where nothing is stored."""
        return await OffsetStore(self._open).query(reference, stream)

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        """The offset behind which a pipeline goes on: as `query_offset`, and -1 where it began with
        offset 0 (`store_beginning`) and nothing is stored since."""
        return await OffsetStore(self._open).query_beginning(reference, stream)

    async def store_beginning(self, reference: str, stream: str) -> None:
        """Remembers that the reference began with offset 0, and settled nothing so far.

        `query_offset` still answers None. If retention removes messages before something is stored,
        their loss can be seen. Raises CommitNotVerified.
        """
        await OffsetStore(self._open).store_beginning(reference, stream)

    async def store_offset(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        """Sends the last settled offset to be stored, -1 to begin with offset 0.

        The server never answers: it can be lost without a word. It forgets the offset once
        retention has passed it; `keep` has it stored a second time, where retention never gets.
        That is for names that are meant to last, as those of pipelines: only `forget_offset` ends
        it.
        """
        await OffsetStore(self._open).store(reference, stream, offset, keep=keep)

    async def store_offset_verified(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        """Stores an offset and reads it back; raises CommitNotVerified if it did not arrive."""
        await OffsetStore(self._open).store_verified(reference, stream, offset, keep=keep)

    async def claim_reference(self, reference: str, stream: str) -> int | None:
        """Says that offsets under the reference are stored from here on; not answered.

        A number is drawn and stored beside them, and returned: while `reference_claim` answers
        with it, nobody else has claimed the reference since. None where the reference is too long.
        """
        return await OffsetStore(self._open).claim(reference, stream)

    async def reference_claim(self, reference: str, stream: str) -> int | None:
        """The number of whoever claimed the reference last; None where nobody did."""
        return await OffsetStore(self._open).claimed(reference, stream)

    async def forget_offset(self, reference: str, stream: str) -> None:
        """Gives a reference up: `query_offset` answers None from now on, until somebody stores.

        Servers have no command that deletes one; they drop it when retention removes messages.
        """
        await OffsetStore(self._open).forget(reference, stream)

    # --- super streams --------------------------------------------------------------------------

    async def create_super_stream(
        self,
        name: str,
        *,
        partitions: int | Sequence[str] = 3,
        max_length_bytes: int | None = None,
        max_age: timedelta | str | None = None,
        max_segment_size_bytes: int | None = None,
        filter_size_bytes: int | None = None,
        initial_cluster_size: int | None = None,
        leader_locator: str | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Creates a stream per partition, and the super stream `name` over them.

        `partitions` is their number (named NAME-0, NAME-1, ... and routed to by hash), or their
        routing keys (named NAME-KEY). Raises NotSupported below RabbitMQ 3.13, telling how else.
        """
        arguments = stream_arguments(
            max_length_bytes=max_length_bytes,
            max_age=max_age,
            max_segment_size_bytes=max_segment_size_bytes,
            filter_size_bytes=filter_size_bytes,
            initial_cluster_size=initial_cluster_size,
            leader_locator=leader_locator,
        )
        check_name("name", name)
        keys = _binding_keys(partitions)
        streams = tuple(f"{name}-{key}" for key in keys)
        for stream in streams:
            check_stream("partition", stream, self._manager.virtual_host)
        connection = await self._open.locator.get()
        if not connection.supports(Key.CREATE_SUPER_STREAM):
            raise NotSupported(
                "creating super streams over the stream protocol needs RabbitMQ 3.13 or later; "
                f"on this server run `rabbitmq-streams add_super_stream {name} --partitions "
                f"{len(keys)}` (3.11 and later), or declare a direct exchange with bindings that "
                "carry x-stream-partition-order"
            )
        answer = await connection.request(
            lambda c: CreateSuperStream(c, name, streams, keys, arguments), Response
        )
        if answer.code == Code.STREAM_ALREADY_EXISTS and exist_ok:
            return
        raise_for_code(answer.code, f'create super stream "{name}"', stream=name)

    async def delete_super_stream(self, name: str, *, missing_ok: bool = False) -> None:
        """Deletes a super stream with all its partitions; NotSupported below RabbitMQ 3.13."""
        connection = await self._open.locator.get()
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
        return await read_partitions(self._open, super_stream)

    async def routing_of(self, super_stream: str) -> Literal["hash", "key"]:
        """How keys choose a partition: "hash" where the first one is bound with "0", as in super
        streams made by a number of partitions, and "key" where routing keys were given."""
        partitions = await self.partitions(super_stream)
        return "hash" if await self.route("0", super_stream) == partitions[:1] else "key"

    async def route(self, routing_key: str, super_stream: str) -> list[str]:
        """The partitions that are bound with the routing key; empty where none is."""
        return await read_route(self._open, routing_key, super_stream)


def stream_arguments(
    *,
    max_length_bytes: int | None,
    max_age: timedelta | str | None,
    max_segment_size_bytes: int | None,
    filter_size_bytes: int | None,
    initial_cluster_size: int | None,
    leader_locator: str | None,
) -> dict[str, str]:
    """The arguments of Create; raises ConfigurationError naming the option that is wrong."""
    numbers = {
        "max_length_bytes": max_length_bytes,
        "max_segment_size_bytes": max_segment_size_bytes,
        "initial_cluster_size": initial_cluster_size,
    }
    for name, value in numbers.items():
        if value is not None:
            check_whole(name, value, 1)
    if filter_size_bytes is not None:
        check_whole("filter_size_bytes", filter_size_bytes, 16, 255)
    if leader_locator not in (None, *LEADER_LOCATORS):
        raise ConfigurationError(
            f"leader_locator={leader_locator!r}: give one of {', '.join(LEADER_LOCATORS)}"
        )
    if isinstance(max_age, timedelta):
        max_age = f"{int(max_age.total_seconds())}s"
    if max_age is not None and not re.fullmatch(r"[1-9]\d*[YMDhms]", str(max_age)):
        raise ConfigurationError(
            f"max_age={max_age!r}: give a timedelta from a second on, or a number of Y, M, D, h, m "
            'or s, such as "12h"'
        )
    arguments = {
        "max-length-bytes": max_length_bytes,
        "max-age": max_age,
        "stream-max-segment-size-bytes": max_segment_size_bytes,
        "stream-filter-size-bytes": filter_size_bytes,
        "initial-cluster-size": initial_cluster_size,
        "queue-leader-locator": leader_locator,
    }
    return {key: str(value) for key, value in arguments.items() if value is not None}


def _binding_keys(partitions: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(partitions, int):
        check_whole("partitions", partitions, 1, MOST_PARTITIONS)
        return tuple(str(number) for number in range(partitions))
    if isinstance(partitions, str) or not isinstance(partitions, Sequence):
        raise ConfigurationError(
            f"partitions={shown(partitions)}: give a number from 1 on, or a list of routing keys"
        )
    for key in partitions:
        check_text("partitions", key, 0, MAX_NAME)
    if not partitions or len(set(partitions)) != len(partitions):
        raise ConfigurationError("partitions: give a number from 1 on, or distinct routing keys")
    return tuple(partitions)


def _or_none(value: int | None) -> int | None:
    return None if value is None or value < 0 else value
