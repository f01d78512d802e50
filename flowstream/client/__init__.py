"""The client: everything a program does with RabbitMQ Streams, on asyncio and trio.

    environment.py   the face: one object per application (admin.py: streams, offsets)
    publisher.py     outbox.py, unconfirmed.py, framing.py: from bodies to frames, until confirmed
    consumer.py      delivery.py, credit.py, offsets.py, probe.py: from chunks to deliveries
    attachment.py    the loop that keeps publishers and consumers attached (backoff.py, states.py)
    core.py          connections by role: pool.py, seed.py, nodes.py
    connection.py    one connection: opening.py (handshake), ids.py, codes.py
    transport.py     TCP and TLS; url.py, credentials.py, settings.py: what they need
    tasks.py         background tasks with an owner

This file is the room's contract.
"""

from flowstream.client.admin import StreamStatistics
from flowstream.client.backoff import Backoff
from flowstream.client.consumer import Consumer
from flowstream.client.credentials import (
    Credentials,
    ExternalCredentials,
    PlainCredentials,
    Token,
    TokenCredentials,
)
from flowstream.client.credit import CreditOnArrival, CreditStrategy, CreditWhenDone
from flowstream.client.delivery import Delivery
from flowstream.client.environment import Environment
from flowstream.client.nodes import StreamNodes
from flowstream.client.offsets import Offset, offset_spec
from flowstream.client.publisher import Publisher
from flowstream.client.states import State
from flowstream.client.transport import Tls
from flowstream.client.url import DEFAULT_URL, StreamUrl
from flowstream.protocol import Address, Compression, OffsetSpec

__all__ = [
    "DEFAULT_URL",
    "Address",
    "Backoff",
    "Compression",
    "Consumer",
    "Credentials",
    "CreditOnArrival",
    "CreditStrategy",
    "CreditWhenDone",
    "Delivery",
    "Environment",
    "ExternalCredentials",
    "Offset",
    "OffsetSpec",
    "PlainCredentials",
    "Publisher",
    "State",
    "StreamNodes",
    "StreamStatistics",
    "StreamUrl",
    "Tls",
    "Token",
    "TokenCredentials",
    "offset_spec",
]
