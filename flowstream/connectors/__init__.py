"""Connects the client and the pipeline: streams as sources, sinks and dead-letter streams.

It promises that a source resumes behind its stored offset, that a beginning is stored before the
first message is handled, that no offset of another run is overwritten unnoticed, and that a batch
settles only when the broker has confirmed all of it. In the order to read:

    stream_producer.py         StreamProducer: one stream, resumed behind its stored offset
    super_stream_producer.py   SuperStreamProducer: partitions, shared between processes
    stream_sink.py             StreamSink: batches published and confirmed
    publish_once.py            the same with exactly_once=True; once_routing.py: to a super stream
    dead_letter.py             DeadLetter: failed messages, with origin and reason; valve.py
    files/                     FileSink: batches as files, each message in one of them
    sql/                       SqliteSink, PostgresSink, ExactlyOnce: rows, each written once
    written_record.py          what sinks keep of what they have written, for commands
    published_record.py        what brokers know of what sinks have published, for commands
    environment.py             StreamEnvironment: what connectors need of an environment
    start.py, filtering.py, amqp.py, encoding.py, done_ranges.py   what they share
"""

from flowstream.connectors.dead_letter import PROPERTIES as DEAD_LETTER_PROPERTIES
from flowstream.connectors.dead_letter import DeadLetter
from flowstream.connectors.done_ranges import DoneRanges
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
from flowstream.connectors.files import FileSink, complete_files
from flowstream.connectors.filtering import Filter
from flowstream.connectors.published_record import Published, once_reference, published
from flowstream.connectors.sql import ExactlyOnce, PostgresSink, SqliteSink, SqlSink
from flowstream.connectors.start import beyond
from flowstream.connectors.stream_producer import StreamProducer
from flowstream.connectors.stream_sink import StreamSink
from flowstream.connectors.super_stream_producer import SuperStreamProducer
from flowstream.connectors.written_record import KeepsRecord

__all__ = [
    "DEAD_LETTER_PROPERTIES",
    "DeadLetter",
    "DoneRanges",
    "ExactlyOnce",
    "FileSink",
    "Filter",
    "KeepsRecord",
    "PostgresSink",
    "Published",
    "SqlSink",
    "SqliteSink",
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
    "beyond",
    "complete_files",
    "encode_payload",
    "once_reference",
    "published",
]
