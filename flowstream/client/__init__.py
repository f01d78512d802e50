"""The client: publishing to RabbitMQ Streams and consuming them, on asyncio and trio.

It promises: a message that was accepted is confirmed or reported as failed; a consumer receives
every message in order, or reports what retention removed; both recover from lost connections by
themselves. Everything that waits is bounded, in size or in time.

Read the files in this order:

    environment.py   Environment: one object per application, where everything begins
    admin.py         its methods for streams, super streams and stored offsets
    publishing/      from a body to a confirm
    consuming/       from a chunk to a delivery, and stored offsets
    connecting/      connections, the handshake, recovery, and the state that all of them share

`publishing` and `consuming` import from `connecting` and not from each other; `connecting` imports
neither. Import public names from here: `from flowstream.client import Environment`.
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
from flowstream.client.connecting.recovery import State, through_losses
from flowstream.client.connecting.url import DEFAULT_URL, StreamUrl, UrlParts
from flowstream.client.consuming.consumer import Consumer
from flowstream.client.consuming.delivery import Delivery, StreamMessage
from flowstream.client.consuming.lag import LagProbe, StreamBacklog
from flowstream.client.consuming.options import (
    AutoTracking,
    ConsumerOptions,
    CreditOnArrival,
    CreditStrategy,
    CreditWhenDone,
    Offset,
    offset_spec,
)
from flowstream.client.consuming.super_consumer import SuperStreamConsumer
from flowstream.client.consuming.tracking import kept_reference
from flowstream.client.environment import Environment
from flowstream.client.publishing.options import PublisherOptions, Routing
from flowstream.client.publishing.publisher import Publisher
from flowstream.client.publishing.super_publisher import (
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
    OffsetKind,
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
from flowstream.tls import Tls

__all__ = [
    "DEFAULT_URL",
    "Address",
    "AmqpMessage",
    "Array",
    "AutoTracking",
    "Compression",
    "Consumer",
    "ConsumerOptions",
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
    "OffsetKind",
    "OffsetSpec",
    "PlainCredentials",
    "Properties",
    "Publisher",
    "PublisherOptions",
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
    "through_losses",
]
