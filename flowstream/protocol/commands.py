"""Every command of the protocol as a value: what `codec` reads and writes, with no bytes in it.

Names and meanings follow the protocol document, section "Commands"; those about the connection
itself are in `session`. Ids are unsigned 8-bit, correlation ids 32-bit, offsets and publishing ids
64-bit. All are frozen dataclasses compared by value; a field that the wire may leave out has a
default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flowstream.protocol.session import (
    Close,
    ExchangeCommandVersions,
    ExchangeCommandVersionsResponse,
    Heartbeat,
    Open,
    OpenResponse,
    PeerProperties,
    PeerPropertiesResponse,
    Response,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    Tune,
    TuneResponse,
)
from flowstream.protocol.values import (
    Address,
    OffsetKind,
    OffsetSpec,
    StreamMetadata,
    SubEntry,
)

_NO_CHOICE = OffsetSpec(OffsetKind.NONE)
_UNRESOLVED = OffsetSpec(OffsetKind.OFFSET)


@dataclass(frozen=True, slots=True)
class DeclarePublisher:
    """Section DeclarePublisher; `reference` None (empty on the wire) means no deduplication."""

    correlation_id: int
    publisher_id: int
    reference: str | None
    stream: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Section Publish, version 1: `(publishing id, body)` pairs and `SubEntry`es, in order.

    A decoded one holds a `publish.Entries`, which has the ids and the raw entries as lists.
    """

    publisher_id: int
    messages: Sequence[tuple[int, bytes] | SubEntry]


@dataclass(frozen=True, slots=True)
class PublishFiltered:
    """Section Publish, version 2: `(publishing id, filter value or None, body)` triples."""

    publisher_id: int
    messages: Sequence[tuple[int, str | None, bytes]]


@dataclass(frozen=True, slots=True)
class PublishConfirm:
    """Section PublishConfirm."""

    publisher_id: int
    publishing_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PublishError:
    """Section PublishError: `(publishing id, response code)` pairs."""

    publisher_id: int
    errors: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class QueryPublisherSequence:
    """Section QueryPublisherSequence."""

    correlation_id: int
    reference: str
    stream: str


@dataclass(frozen=True, slots=True)
class QueryPublisherSequenceResponse:
    """The highest publishing id of the reference; 0 for an unknown one, or really 0."""

    correlation_id: int
    code: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class DeletePublisher:
    """Section DeletePublisher."""

    correlation_id: int
    publisher_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Section Subscribe; `credit` is in chunks. Empty properties are left out on the wire."""

    correlation_id: int
    subscription_id: int
    stream: str
    offset: OffsetSpec
    credit: int
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Deliver:
    """Section Deliver; `chunk` is the header and data of one chunk (see `chunk.Chunk`).

    `committed_chunk_id` is None in version 1, and the offset of the last committed chunk in 2.
    """

    subscription_id: int
    chunk: bytes
    committed_chunk_id: int | None = None


@dataclass(frozen=True, slots=True)
class Credit:
    """Section Credit: so many chunks more; at most 32767, as servers read it signed."""

    subscription_id: int
    credit: int


@dataclass(frozen=True, slots=True)
class CreditError:
    """Section Credit, the response: it comes on errors only, and without a correlation id."""

    code: int
    subscription_id: int


@dataclass(frozen=True, slots=True)
class StoreOffset:
    """Section StoreOffset; never answered."""

    reference: str
    stream: str
    offset: int


@dataclass(frozen=True, slots=True)
class QueryOffset:
    """Section QueryOffset."""

    correlation_id: int
    reference: str
    stream: str


@dataclass(frozen=True, slots=True)
class QueryOffsetResponse:
    """The stored offset; code 19, and not offset 0, means that there is none."""

    correlation_id: int
    code: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Section Unsubscribe."""

    correlation_id: int
    subscription_id: int


@dataclass(frozen=True, slots=True)
class CreateStream:
    """Section Create; servers ignore arguments they do not know."""

    correlation_id: int
    stream: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeleteStream:
    """Section Delete."""

    correlation_id: int
    stream: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """Section Metadata: who leads and who replicates these streams."""

    correlation_id: int
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetadataResponse:
    """The brokers by reference, and the streams; every stream has its own code."""

    correlation_id: int
    brokers: Mapping[int, Address]
    streams: tuple[StreamMetadata, ...]


@dataclass(frozen=True, slots=True)
class MetadataUpdate:
    """Section MetadataUpdate: the stream changed; ask Metadata again."""

    code: int
    stream: str


@dataclass(frozen=True, slots=True)
class Route:
    """Section Route: asks for the partitions of a routing key."""

    correlation_id: int
    routing_key: str
    super_stream: str


@dataclass(frozen=True, slots=True)
class RouteResponse:
    """The partitions bound with the routing key."""

    correlation_id: int
    code: int
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Partitions:
    """Section Partitions."""

    correlation_id: int
    super_stream: str


@dataclass(frozen=True, slots=True)
class PartitionsResponse:
    """The partitions of a super stream, in their order."""

    correlation_id: int
    code: int
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConsumerUpdate:
    """Section ConsumerUpdate: a request of the server, with a correlation id of its own."""

    correlation_id: int
    subscription_id: int
    active: bool


@dataclass(frozen=True, slots=True)
class ConsumerUpdateResponse:
    """The client's answer: where an active consumer begins, otherwise `OffsetSpec.none()`."""

    correlation_id: int
    code: int
    offset: OffsetSpec = _NO_CHOICE


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Section StreamStats."""

    correlation_id: int
    stream: str


@dataclass(frozen=True, slots=True)
class StreamStatsResponse:
    """`first_chunk_id`, `committed_chunk_id` and so on; -1 in an empty stream."""

    correlation_id: int
    code: int
    stats: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CreateSuperStream:
    """Section CreateSuperStream: partitions and their binding keys, pairwise."""

    correlation_id: int
    name: str
    partitions: tuple[str, ...]
    binding_keys: tuple[str, ...]
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeleteSuperStream:
    """Section DeleteSuperStream."""

    correlation_id: int
    name: str


@dataclass(frozen=True, slots=True)
class ResolveOffsetSpec:
    """Section ResolveOffsetSpec. Empty properties are left out on the wire."""

    correlation_id: int
    stream: str
    offset: OffsetSpec
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ResolveOffsetSpecResponse:
    """The current offset of the specification."""

    correlation_id: int
    code: int
    offset: OffsetSpec = _UNRESOLVED


Command: TypeAlias = (
    DeclarePublisher
    | Publish
    | PublishFiltered
    | PublishConfirm
    | PublishError
    | QueryPublisherSequence
    | QueryPublisherSequenceResponse
    | DeletePublisher
    | Subscribe
    | Deliver
    | Credit
    | CreditError
    | StoreOffset
    | QueryOffset
    | QueryOffsetResponse
    | Unsubscribe
    | CreateStream
    | DeleteStream
    | Metadata
    | MetadataResponse
    | MetadataUpdate
    | PeerProperties
    | PeerPropertiesResponse
    | SaslHandshake
    | SaslHandshakeResponse
    | SaslAuthenticate
    | SaslAuthenticateResponse
    | Tune
    | TuneResponse
    | Open
    | OpenResponse
    | Close
    | Heartbeat
    | Route
    | RouteResponse
    | Partitions
    | PartitionsResponse
    | ConsumerUpdate
    | ConsumerUpdateResponse
    | ExchangeCommandVersions
    | ExchangeCommandVersionsResponse
    | StreamStats
    | StreamStatsResponse
    | CreateSuperStream
    | DeleteSuperStream
    | ResolveOffsetSpec
    | ResolveOffsetSpecResponse
    | Response
)
