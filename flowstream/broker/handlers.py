"""Every command a client may send, and the function that handles it.

A handler decides on what is in memory; if it must wait (for the disk, for the store) it is a
coroutine, and the connection's next command waits with it: answers come in the order of requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flowstream.broker import administration, consuming, handshake, publishing
from flowstream.protocol import (
    Close,
    ConsumerUpdateResponse,
    CreateStream,
    CreateSuperStream,
    Credit,
    DeclarePublisher,
    DeletePublisher,
    DeleteStream,
    DeleteSuperStream,
    ExchangeCommandVersions,
    Heartbeat,
    Metadata,
    Open,
    Partitions,
    PeerProperties,
    Publish,
    PublishFiltered,
    QueryOffset,
    QueryPublisherSequence,
    ResolveOffsetSpec,
    Response,
    Route,
    SaslAuthenticate,
    SaslHandshake,
    StoreOffset,
    StreamStats,
    Subscribe,
    Tune,
    TuneResponse,
    Unsubscribe,
)

if TYPE_CHECKING:
    from flowstream.broker.session import Session

Handler = Callable[["Session", Any], Awaitable[None] | None]
HANDLERS: dict[type[Any], Handler] = {
    PeerProperties: handshake.peer_properties,
    SaslHandshake: handshake.sasl_handshake,
    SaslAuthenticate: handshake.sasl_authenticate,
    Tune: handshake.tune,
    TuneResponse: handshake.tune,
    Open: handshake.open_host,
    ExchangeCommandVersions: handshake.exchange_versions,
    Close: handshake.close,
    Response: handshake.closed,
    Heartbeat: handshake.heartbeat,
    DeclarePublisher: publishing.declare,
    Publish: publishing.publish,
    PublishFiltered: publishing.publish,
    QueryPublisherSequence: publishing.query_sequence,
    DeletePublisher: publishing.delete,
    Subscribe: consuming.subscribe,
    Credit: consuming.credit,
    StoreOffset: consuming.store_offset,
    QueryOffset: consuming.query_offset,
    Unsubscribe: consuming.unsubscribe,
    ConsumerUpdateResponse: consuming.consumer_updated,
    ResolveOffsetSpec: consuming.resolve,
    CreateStream: administration.create,
    DeleteStream: administration.delete,
    Metadata: administration.metadata,
    Route: administration.route,
    Partitions: administration.partitions,
    StreamStats: administration.statistics,
    CreateSuperStream: administration.create_super,
    DeleteSuperStream: administration.delete_super,
}
