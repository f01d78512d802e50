"""A broker in memory that does exactly what a test says, built on the server role of protocol/.

It has no tasks and no clock: what the client sends is handled inside the client's own `send`, and
the answers wait in its inbox. So nothing depends on scheduling, and virtual time can jump.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from flowstream.errors import ConnectionFailed
from flowstream.protocol import (
    Address,
    Close,
    Code,
    CommandVersion,
    Connection,
    ConsumerUpdate,
    ConsumerUpdateResponse,
    CreateStream,
    CreateSuperStream,
    Credit,
    DeclarePublisher,
    DeletePublisher,
    DeleteStream,
    Deliver,
    Entries,
    ExchangeCommandVersions,
    ExchangeCommandVersionsResponse,
    Heartbeat,
    Key,
    Metadata,
    MetadataResponse,
    MetadataUpdate,
    OffsetKind,
    OffsetSpec,
    Open,
    OpenResponse,
    Partitions,
    PartitionsResponse,
    PeerProperties,
    PeerPropertiesResponse,
    Publish,
    PublishConfirm,
    PublishError,
    PublishFiltered,
    QueryOffset,
    QueryOffsetResponse,
    QueryPublisherSequence,
    QueryPublisherSequenceResponse,
    Response,
    Role,
    Route,
    RouteResponse,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    State,
    StoreOffset,
    StreamMetadata,
    StreamStats,
    StreamStatsResponse,
    Subscribe,
    Tune,
    TuneResponse,
    Unsubscribe,
    build_chunk,
    simple_entry,
)
from flowstream.signals import Signal

SERVER_VERSIONS = tuple(
    CommandVersion(key, 1, 2 if key in (Key.PUBLISH, Key.DELIVER) else 1) for key in range(1, 31)
)


@dataclass
class MemoryStream:
    """Chunks as (offset, timestamp, entries, records)."""

    chunks: list[tuple[int, int, list[bytes], int]] = field(default_factory=list)
    next_offset: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    def append(self, entries: Sequence[bytes], records: int, timestamp: int) -> None:
        self.chunks.append((self.next_offset, timestamp, list(entries), records))
        self.next_offset += records

    def index(self, spec: OffsetSpec) -> int:
        """The chunk at which a subscription begins."""
        if spec.kind is OffsetKind.FIRST:
            return 0
        if spec.kind is OffsetKind.LAST:
            return max(0, len(self.chunks) - 1)
        if spec.kind is OffsetKind.NEXT:
            return len(self.chunks)
        ends = [offset + records for offset, _, _, records in self.chunks]
        return next((i for i, end in enumerate(ends) if end > spec.value), len(self.chunks))


@dataclass
class Subscription:
    session: Session
    id: int
    stream: str
    credit: int
    position: int
    waiting: bool = False


class MemorySocket(ByteStream):
    """The client's end of a connection to a `Session`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.inbox: deque[bytes] = deque()
        self.changed = Signal()
        self.closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self.inbox:
            if self.closed or self.session.cut:
                raise anyio.EndOfStream
            await self.changed.wait()
        return self.inbox.popleft()

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        while self.session.stalled and not self.session.cut:
            await self.session.resumed.wait()
        if self.session.cut or self.closed:
            raise anyio.BrokenResourceError
        self.session.feed(item)

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None:
        self.closed = True
        self.changed.notify()
        self.session.end()


class Session:
    """The broker's end of one connection."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.wire = Connection(Role.SERVER, frame_max=node.frame_max, heartbeat=node.heartbeat)
        self.socket = MemorySocket(self)
        self.name = ""
        self.received: list[Any] = []
        self.publishers: dict[int, tuple[str, str | None]] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.cut = False
        self.stalled = False
        self.resumed = Signal()
        self.mute = False
        self._server_correlation = 900

    @property
    def open(self) -> bool:
        return not self.cut and not self.socket.closed

    def send(self, command: Any) -> None:
        if self.open and not self.mute:
            self.socket.inbox.append(self.wire.send(command))
            self.socket.changed.notify()

    def raw(self, data: bytes) -> None:
        self.socket.inbox.append(data)
        self.socket.changed.notify()

    def feed(self, data: bytes) -> None:
        for command in self.wire.receive(data):
            self.received.append(command)
            closing = self.wire.state in (State.CLOSING, State.CLOSED)
            if closing and not isinstance(command, Close):
                continue
            script = self.node.scripts.get(type(command))
            if script is None or not script(self, command):
                _HANDLERS[type(command)](self, command)

    def drop(self) -> None:
        """The connection breaks, without a word."""
        self.cut = True
        self.socket.changed.notify()
        self.resumed.notify()
        self.end()

    def end(self) -> None:
        self.publishers.clear()
        self.subscriptions.clear()

    def stall(self) -> None:
        self.stalled = True

    def resume(self) -> None:
        self.stalled = False
        self.resumed.notify()

    def promote(self, subscription_id: int, active: bool) -> int:
        self._server_correlation += 1
        self.send(ConsumerUpdate(self._server_correlation, subscription_id, active))
        return self._server_correlation

    # --- handlers -------------------------------------------------------------------------------

    def peer_properties(self, c: PeerProperties) -> None:
        self.name = c.properties.get("connection_name", "")
        properties = {"product": "scripted", "version": self.node.version}
        self.send(PeerPropertiesResponse(c.correlation_id, Code.OK, properties))

    def sasl_handshake(self, c: SaslHandshake) -> None:
        self.send(SaslHandshakeResponse(c.correlation_id, Code.OK, ("PLAIN", "EXTERNAL")))

    def sasl_authenticate(self, c: SaslAuthenticate) -> None:
        running = self.wire.state.name == "RUNNING"
        self.send(SaslAuthenticateResponse(c.correlation_id, Code.OK))
        if not running:
            self.send(Tune(self.node.frame_max, self.node.heartbeat))

    def tune(self, c: Tune | TuneResponse) -> None: ...

    def open_(self, c: Open) -> None:
        address = self.node.address
        properties = {"advertised_host": address.host, "advertised_port": str(address.port)}
        self.send(OpenResponse(c.correlation_id, Code.OK, properties))

    def close(self, c: Close) -> None:
        self.ok(Key.CLOSE, c.correlation_id)

    def versions(self, c: ExchangeCommandVersions) -> None:
        self.send(ExchangeCommandVersionsResponse(c.correlation_id, Code.OK, SERVER_VERSIONS))

    def heartbeat(self, c: Heartbeat) -> None: ...

    def response(self, c: Response) -> None: ...

    def ok(self, key: Key, correlation_id: int, code: int = Code.OK) -> None:
        self.send(Response(key, correlation_id, code))

    def create(self, c: CreateStream) -> None:
        exists = c.stream in self.node.streams
        self.node.streams.setdefault(c.stream, MemoryStream())
        code = Code.STREAM_ALREADY_EXISTS if exists else Code.OK
        self.ok(Key.CREATE_STREAM, c.correlation_id, code)

    def create_super(self, c: CreateSuperStream) -> None:
        for stream in c.partitions:
            self.node.streams.setdefault(stream, MemoryStream())
        self.node.super_streams[c.name] = list(c.partitions)
        self.ok(Key.CREATE_SUPER_STREAM, c.correlation_id)

    def delete(self, c: DeleteStream) -> None:
        found = self.node.streams.pop(c.stream, None)
        code = Code.OK if found is not None else Code.STREAM_DOES_NOT_EXIST
        self.ok(Key.DELETE_STREAM, c.correlation_id, code)
        if found is not None:
            self.node.forget(c.stream)

    def metadata(self, c: Metadata) -> None:
        streams = tuple(self.node.cluster.describe(stream) for stream in c.streams)
        brokers = {number: node.address for number, node in enumerate(self.node.cluster.nodes)}
        self.send(MetadataResponse(c.correlation_id, brokers, streams))

    def declare(self, c: DeclarePublisher) -> None:
        if c.stream not in self.node.streams:
            self.ok(Key.DECLARE_PUBLISHER, c.correlation_id, Code.STREAM_DOES_NOT_EXIST)
            return
        self.publishers[c.publisher_id] = (c.stream, c.reference)
        self.ok(Key.DECLARE_PUBLISHER, c.correlation_id)

    def delete_publisher(self, c: DeletePublisher) -> None:
        found = self.publishers.pop(c.publisher_id, None)
        code = Code.OK if found is not None else Code.PUBLISHER_DOES_NOT_EXIST
        self.ok(Key.DELETE_PUBLISHER, c.correlation_id, code)

    def sequence(self, c: QueryPublisherSequence) -> None:
        number = self.node.streams[c.stream].sequences.get(c.reference, 0)
        self.send(QueryPublisherSequenceResponse(c.correlation_id, Code.OK, number))

    def publish(self, c: Publish | PublishFiltered) -> None:
        entries = c.messages
        assert isinstance(entries, Entries)
        if c.publisher_id not in self.publishers:
            errors = tuple((number, Code.PUBLISHER_DOES_NOT_EXIST) for number in entries.ids)
            self.send(PublishError(c.publisher_id, errors))
            return
        stream, reference = self.publishers[c.publisher_id]
        log = self.node.streams[stream]
        fresh = list(zip(entries.ids, entries.entries, strict=True))
        if reference is not None:
            highest = log.sequences.get(reference, -1)
            fresh = [pair for pair in fresh if pair[0] > highest]
            log.sequences[reference] = max([highest, *entries.ids])
        if fresh:
            records = entries.records if len(fresh) == len(entries) else len(fresh)
            log.append([entry for _, entry in fresh], records, self.node.tick())
        if not self.node.unconfirming:
            self.send(PublishConfirm(c.publisher_id, tuple(entries.ids)))
        self.node.deliver(stream)

    def subscribe(self, c: Subscribe) -> None:
        if c.stream not in self.node.streams:
            self.ok(Key.SUBSCRIBE, c.correlation_id, Code.STREAM_DOES_NOT_EXIST)
            return
        position = self.node.streams[c.stream].index(c.offset)
        waiting = "single-active-consumer" in c.properties
        found = Subscription(self, c.subscription_id, c.stream, c.credit, position, waiting)
        self.subscriptions[c.subscription_id] = found
        self.ok(Key.SUBSCRIBE, c.correlation_id)
        if waiting:
            self.promote(c.subscription_id, active=True)
        self.node.serve(found)

    def unsubscribe(self, c: Unsubscribe) -> None:
        found = self.subscriptions.pop(c.subscription_id, None)
        code = Code.OK if found is not None else Code.SUBSCRIPTION_ID_DOES_NOT_EXIST
        self.ok(Key.UNSUBSCRIBE, c.correlation_id, code)

    def credit(self, c: Credit) -> None:
        found = self.subscriptions.get(c.subscription_id)
        if found is not None:
            found.credit += c.credit
            self.node.serve(found)

    def consumer_update(self, c: ConsumerUpdateResponse) -> None:
        for found in self.subscriptions.values():
            if found.waiting and c.offset.kind is not OffsetKind.NONE:
                found.waiting = False
                found.position = self.node.streams[found.stream].index(c.offset)
                self.node.serve(found)

    def store(self, c: StoreOffset) -> None:
        self.node.streams[c.stream].offsets[c.reference] = c.offset

    def query(self, c: QueryOffset) -> None:
        log = self.node.streams.get(c.stream)
        stored = None if log is None else log.offsets.get(c.reference)
        code = Code.OK if stored is not None else Code.NO_OFFSET
        if log is None:
            code = Code.STREAM_DOES_NOT_EXIST
        self.send(QueryOffsetResponse(c.correlation_id, code, stored or 0))

    def stats(self, c: StreamStats) -> None:
        chunks = self.node.streams[c.stream].chunks
        first, last = (chunks[0][0], chunks[-1][0]) if chunks else (-1, -1)
        committed = -1 if self.node.uncommitted else last
        values = {"first_chunk_id": first, "committed_chunk_id": committed, "last_chunk_id": last}
        self.send(StreamStatsResponse(c.correlation_id, Code.OK, values))

    def partitions(self, c: Partitions) -> None:
        streams = tuple(self.node.super_streams.get(c.super_stream, ()))
        code = Code.OK if streams else Code.STREAM_DOES_NOT_EXIST
        self.send(PartitionsResponse(c.correlation_id, code, streams))

    def route(self, c: Route) -> None:
        streams = self.node.super_streams.get(c.super_stream, [])
        wanted = tuple(s for s in streams if s == f"{c.super_stream}-{c.routing_key}")
        self.send(RouteResponse(c.correlation_id, Code.OK, wanted))


_HANDLERS: dict[type, Callable[[Session, Any], None]] = {
    PeerProperties: Session.peer_properties,
    SaslHandshake: Session.sasl_handshake,
    SaslAuthenticate: Session.sasl_authenticate,
    Tune: Session.tune,
    TuneResponse: Session.tune,
    Open: Session.open_,
    ExchangeCommandVersions: Session.versions,
    Close: Session.close,
    Heartbeat: Session.heartbeat,
    Response: Session.response,
    CreateStream: Session.create,
    CreateSuperStream: Session.create_super,
    DeleteStream: Session.delete,
    Metadata: Session.metadata,
    DeclarePublisher: Session.declare,
    DeletePublisher: Session.delete_publisher,
    QueryPublisherSequence: Session.sequence,
    Publish: Session.publish,
    PublishFiltered: Session.publish,
    Subscribe: Session.subscribe,
    Unsubscribe: Session.unsubscribe,
    Credit: Session.credit,
    ConsumerUpdateResponse: Session.consumer_update,
    StoreOffset: Session.store,
    QueryOffset: Session.query,
    StreamStats: Session.stats,
    Partitions: Session.partitions,
    Route: Session.route,
}

Script = Callable[[Session, Any], bool]
"""Handles a command instead of the broker; returns whether it did."""


class Node:
    """One node. `scripts` intercept commands; `sessions` are all connections there ever were."""

    def __init__(
        self, cluster: Cluster, address: Address, version: str = "4.0.5", heartbeat: int = 60
    ) -> None:
        self.cluster = cluster
        self.address = address
        self.version = version
        self.heartbeat = heartbeat
        self.frame_max = 1_048_576
        self.scripts: dict[type, Script] = {}
        self.sessions: list[Session] = []
        self.up = True
        self.unconfirming = False
        self.uncommitted = False  # a new leader that has not heard from its replicas

    @property
    def streams(self) -> dict[str, MemoryStream]:
        return self.cluster.streams

    @property
    def super_streams(self) -> dict[str, list[str]]:
        return self.cluster.super_streams

    def tick(self) -> int:
        self.cluster.now += 1
        return self.cluster.now

    def live(self, role: str = "") -> list[Session]:
        return [s for s in self.sessions if s.open and role in s.name]

    def received(self, kind: type) -> list[Any]:
        return [c for session in self.sessions for c in session.received if isinstance(c, kind)]

    def kill(self) -> None:
        self.up = False
        for session in self.live():
            session.drop()

    def deliver(self, stream: str) -> None:
        for node in self.cluster.nodes:
            for session in node.live():
                for subscription in tuple(session.subscriptions.values()):
                    if subscription.stream == stream:
                        node.serve(subscription)

    def serve(self, subscription: Subscription) -> None:
        log = self.streams.get(subscription.stream)
        while (
            log is not None
            and not self.uncommitted
            and not subscription.waiting
            and subscription.credit
            and subscription.position < len(log.chunks)
        ):
            offset, timestamp, entries, records = log.chunks[subscription.position]
            chunk = build_chunk(entries, records=records, offset=offset, timestamp=timestamp)
            subscription.position += 1
            subscription.credit -= 1
            subscription.session.send(Deliver(subscription.id, chunk, log.chunks[-1][0]))

    def forget(self, stream: str) -> None:
        """The stream moved or is gone: its users are dropped and told."""
        for node in self.cluster.nodes:
            for session in node.live():
                publishers = [i for i, p in session.publishers.items() if p[0] == stream]
                readers = [i for i, s in session.subscriptions.items() if s.stream == stream]
                for number in publishers:
                    del session.publishers[number]
                for number in readers:
                    del session.subscriptions[number]
                if publishers or readers:
                    session.send(MetadataUpdate(Code.STREAM_NOT_AVAILABLE, stream))


class Cluster:
    """Nodes that share their streams; `dial` is what an environment connects with."""

    def __init__(self, nodes: int = 1, *, version: str = "4.0.5", heartbeat: int = 60) -> None:
        self.streams: dict[str, MemoryStream] = {}
        self.super_streams: dict[str, list[str]] = {}
        self.now = 1_700_000_000_000
        self.nodes = [
            Node(self, Address(f"node{i}", 5552), version, heartbeat) for i in range(nodes)
        ]
        self.leaders: dict[str, int] = {}
        self.dialled: list[Address] = []
        self.balanced: list[int] | None = None

    @property
    def node(self) -> Node:
        return self.nodes[0]

    def describe(self, stream: str) -> StreamMetadata:
        if stream not in self.streams:
            return StreamMetadata(stream, Code.STREAM_DOES_NOT_EXIST, 65535, ())
        leader = self.leaders.get(stream, 0)
        replicas = [i for i, node in enumerate(self.nodes) if node.up and i != leader]
        found = leader if leader < len(self.nodes) and self.nodes[leader].up else 65535
        return StreamMetadata(stream, Code.OK, found, tuple(replicas))

    def add(self, stream: str, *bodies: Sequence[bytes]) -> MemoryStream:
        """A stream with a chunk for each sequence of bodies."""
        log = self.streams[stream] = MemoryStream()
        for chunk in bodies:
            log.append([simple_entry(body) for body in chunk], len(chunk), self.node.tick())
        return log

    def move(self, stream: str, leader: int) -> None:
        self.leaders[stream] = leader
        self.node.forget(stream)

    async def dial(self, address: Address) -> ByteStream:
        self.dialled.append(address)
        await anyio.lowlevel.checkpoint()
        if self.balanced is not None:
            node = self.nodes[self.balanced.pop(0) if self.balanced else 0]
        else:
            node = next((n for n in self.nodes if n.address == address), self.nodes[0])
            if node.address != address:
                raise ConnectionFailed(f"no broker at {address.host}:{address.port}")
        if not node.up:
            raise ConnectionFailed(f"no broker at {address.host}:{address.port}: refused")
        session = Session(node)
        node.sessions.append(session)
        return session.socket
