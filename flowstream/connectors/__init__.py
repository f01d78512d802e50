"""The only glue of client and pipeline: streams as sources, sinks and dead-letter stores.

    stream_producer.py         StreamProducer: one stream, resumed behind its committed offset
    super_stream_producer.py   SuperStreamProducer: its partitions, shared between processes
    stream_sink.py             StreamSink: batches published and confirmed
    dead_letter.py             DeadLetter: failed messages kept with origin and reason; valve.py
    environment.py             StreamEnvironment: what they need of an environment
    start.py, filtering.py, amqp.py, encoding.py   what they share

This file is the room's contract.
"""

from flowstream.connectors.dead_letter import PROPERTIES as DEAD_LETTER_PROPERTIES
from flowstream.connectors.dead_letter import DeadLetter
from flowstream.connectors.encoding import encode_payload
from flowstream.connectors.environment import (
    StreamDelivery,
    StreamEnvironment,
    StreamLag,
    StreamReader,
    StreamWriter,
    SuperStreamReader,
    SuperStreamWriter,
)
from flowstream.connectors.filtering import Filter
from flowstream.connectors.stream_producer import StreamProducer
from flowstream.connectors.stream_sink import StreamSink
from flowstream.connectors.super_stream_producer import SuperStreamProducer

__all__ = [
    "DEAD_LETTER_PROPERTIES",
    "DeadLetter",
    "Filter",
    "StreamDelivery",
    "StreamEnvironment",
    "StreamLag",
    "StreamProducer",
    "StreamReader",
    "StreamSink",
    "StreamWriter",
    "SuperStreamProducer",
    "SuperStreamReader",
    "SuperStreamWriter",
    "encode_payload",
]
