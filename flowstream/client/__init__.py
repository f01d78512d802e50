"""The client: everything a program does with RabbitMQ Streams, on asyncio and trio.

    environment.py   the face: one object per application (admin.py: streams, offsets)
    publisher.py     the face of publishing; session.py: its place on a connection; outbox.py,
                     unconfirmed.py, framing.py: from bodies to confirmed frames; failures.py
    consumer.py      the face of consuming; subscription.py: its place on a connection; delivery.py,
                     credit.py, offsets.py, identity.py, probe.py, backlog.py;
                     tracking.py, single_active.py
    super_publisher.py, super_consumer.py   over the partitions (partitions.py, routing.py)
    options.py       what publishers and consumers can be told; checks.py: wrong ones are refused
    recovery.py    the loop that keeps both attached (backoff.py, states.py, signals.py)
    manager.py          connections by role: pool.py, seed.py, nodes.py
    connection.py    one connection: opening.py (handshake), ids.py, codes.py
    transport.py     TCP and TLS; url.py, credentials.py, settings.py: what they need
    tasks.py         background tasks with an owner

This file is the room's contract.
"""

from flowstream.client.admin import ServerInfo, StreamStatistics
from flowstream.client.connecting.credentials import (
    Credentials,
    ExternalCredentials,
    PlainCredentials,
    Token,
    TokenCredentials,
)
from flowstream.client.connecting.handshake import this_process
from flowstream.client.connecting.locator import StreamNodes
from flowstream.client.connecting.recovery import State
from flowstream.client.connecting.settings import Backoff
from flowstream.client.connecting.transport import Tls
from flowstream.client.connecting.url import DEFAULT_URL, StreamUrl, UrlParts
from flowstream.client.consuming.consumer import Consumer
from flowstream.client.consuming.delivery import Delivery, StreamMessage
from flowstream.client.consuming.lag import LagProbe, StreamBacklog
from flowstream.client.consuming.options import (
    AutoTracking,
    CreditOnArrival,
    CreditStrategy,
    CreditWhenDone,
    Offset,
    offset_spec,
)
from flowstream.client.consuming.super_consumer import SuperStreamConsumer
from flowstream.client.consuming.tracking import kept_reference
from flowstream.client.environment import Environment
from flowstream.client.publishing.publisher import Publisher
from flowstream.client.publishing.super_publisher import (
    Routing,
    SuperStreamPublisher,
    hash_index,
    hash_route,
)
from flowstream.protocol import (
    Address,
    AmqpMessage,
    Array,
    Compression,
    Described,
    Header,
    OffsetSpec,
    Properties,
    Symbol,
    Timestamp,
    data_of,
    data_of_all,
    encode_data,
    encode_data_all,
    encode_message,
    is_amqp,
    payload_of,
    plain_value,
)

__all__ = [
    "DEFAULT_URL",
    "Address",
    "AmqpMessage",
    "Array",
    "AutoTracking",
    "Backoff",
    "Compression",
    "Consumer",
    "Credentials",
    "CreditOnArrival",
    "CreditStrategy",
    "CreditWhenDone",
    "Delivery",
    "Described",
    "Environment",
    "ExternalCredentials",
    "Header",
    "LagProbe",
    "Offset",
    "OffsetSpec",
    "PlainCredentials",
    "Properties",
    "Publisher",
    "Routing",
    "ServerInfo",
    "State",
    "StreamBacklog",
    "StreamMessage",
    "StreamNodes",
    "StreamStatistics",
    "StreamUrl",
    "SuperStreamConsumer",
    "SuperStreamPublisher",
    "Symbol",
    "Timestamp",
    "Tls",
    "Token",
    "TokenCredentials",
    "UrlParts",
    "data_of",
    "data_of_all",
    "encode_data",
    "encode_data_all",
    "encode_message",
    "hash_index",
    "hash_route",
    "is_amqp",
    "kept_reference",
    "offset_spec",
    "payload_of",
    "plain_value",
    "this_process",
]
