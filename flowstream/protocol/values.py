"""The small values that commands are made of: keys, codes, offset specifications, addresses.

Sources: the protocol document, sections "Response Codes", "Commands" and "Subscribe".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple


class Key(IntEnum):
    """The command keys; a response carries the same key with the top bit set."""

    DECLARE_PUBLISHER = 1
    PUBLISH = 2
    PUBLISH_CONFIRM = 3
    PUBLISH_ERROR = 4
    QUERY_PUBLISHER_SEQUENCE = 5
    DELETE_PUBLISHER = 6
    SUBSCRIBE = 7
    DELIVER = 8
    CREDIT = 9
    STORE_OFFSET = 10
    QUERY_OFFSET = 11
    UNSUBSCRIBE = 12
    CREATE_STREAM = 13
    DELETE_STREAM = 14
    METADATA = 15
    METADATA_UPDATE = 16
    PEER_PROPERTIES = 17
    SASL_HANDSHAKE = 18
    SASL_AUTHENTICATE = 19
    TUNE = 20
    OPEN = 21
    CLOSE = 22
    HEARTBEAT = 23
    ROUTE = 24
    PARTITIONS = 25
    CONSUMER_UPDATE = 26
    EXCHANGE_COMMAND_VERSIONS = 27
    STREAM_STATS = 28
    CREATE_SUPER_STREAM = 29
    DELETE_SUPER_STREAM = 30
    RESOLVE_OFFSET_SPEC = 31


class Code(IntEnum):
    """The response codes; decoded commands hold plain integers, as a server may know more."""

    OK = 1
    STREAM_DOES_NOT_EXIST = 2
    SUBSCRIPTION_ID_ALREADY_EXISTS = 3
    SUBSCRIPTION_ID_DOES_NOT_EXIST = 4
    STREAM_ALREADY_EXISTS = 5
    STREAM_NOT_AVAILABLE = 6
    SASL_MECHANISM_NOT_SUPPORTED = 7
    AUTHENTICATION_FAILURE = 8
    SASL_ERROR = 9
    SASL_CHALLENGE = 10
    SASL_AUTHENTICATION_FAILURE_LOOPBACK = 11
    VIRTUAL_HOST_ACCESS_FAILURE = 12
    UNKNOWN_FRAME = 13
    FRAME_TOO_LARGE = 14
    INTERNAL_ERROR = 15
    ACCESS_REFUSED = 16
    PRECONDITION_FAILED = 17
    PUBLISHER_DOES_NOT_EXIST = 18
    NO_OFFSET = 19
    SASL_CANNOT_CHANGE_MECHANISM = 20
    SASL_CANNOT_CHANGE_USERNAME = 21


OK = Code.OK
CHALLENGE = Code.SASL_CHALLENGE
NO_LEADER = 65535
"""The leader reference of a stream that has no leader now (Metadata)."""


class OffsetKind(IntEnum):
    """The kind of place in a stream that an `OffsetSpec` names."""

    NONE = 0
    FIRST = 1
    LAST = 2
    NEXT = 3
    OFFSET = 4
    TIMESTAMP = 5


@dataclass(frozen=True, slots=True)
class OffsetSpec:
    """A place in a stream; `value` is an offset (OFFSET) or milliseconds (TIMESTAMP), else 0."""

    kind: OffsetKind
    value: int = 0

    @classmethod
    def none(cls) -> OffsetSpec:
        """No choice: only as the answer to a ConsumerUpdate."""
        return cls(OffsetKind.NONE)

    @classmethod
    def first(cls) -> OffsetSpec:
        """The first retained message."""
        return cls(OffsetKind.FIRST)

    @classmethod
    def last(cls) -> OffsetSpec:
        """The beginning of the last chunk."""
        return cls(OffsetKind.LAST)

    @classmethod
    def next(cls) -> OffsetSpec:
        """The next message that will be published."""
        return cls(OffsetKind.NEXT)

    @classmethod
    def offset(cls, value: int) -> OffsetSpec:
        """This offset, or the first retained one if it is older."""
        return cls(OffsetKind.OFFSET, value)

    @classmethod
    def timestamp(cls, milliseconds: int) -> OffsetSpec:
        """The chunk written at or after this time, in milliseconds since 1970."""
        return cls(OffsetKind.TIMESTAMP, milliseconds)


class Address(NamedTuple):
    """The address that a broker listens on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class CommandVersion(NamedTuple):
    """The versions of one command that a peer understands, both ends included."""

    key: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class SubEntry:
    """Messages published and stored as one entry: `data` is their run, compressed or not."""

    publishing_id: int
    compression: int
    records: int
    uncompressed_size: int
    data: bytes


SUB_ENTRY = Struct(">BHII")
"""What precedes the data of a sub-entry: kind, records, uncompressed size, size."""
SUB_ENTRY_HEADER = SUB_ENTRY.size
IS_SUB_ENTRY = 1 << 31
"""The top bit of an entry's first word: set for sub-entries, clear for simple entries."""


class StreamMetadata(NamedTuple):
    """One stream in a MetadataResponse; `leader` and `replicas` refer to its `brokers`."""

    name: str
    code: int
    leader: int
    replicas: tuple[int, ...]
