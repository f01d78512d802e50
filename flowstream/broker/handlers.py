"""Every command that a client may send, and the function that handles it.

A handler decides on what is in memory. One that has to wait (for the disk, for the store) is a
coroutine, and the next command of the connection waits with it: answers leave in the order of the
requests.
"""

from __future__ import annotations

from typing import Any

from flowstream.broker import administration, consuming, handshake, publishing
from flowstream.broker.session import Handler
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
