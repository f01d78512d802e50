"""The only glue of client and pipeline: streams as sources, sinks and dead-letter stores.

stream_producer.py   StreamProducer: a stream as the source; offsets stored and verified
stream_sink.py       StreamSink: batches published, settled after the confirm
dead_letter.py       DeadLetter: the failure policy that keeps what failed in another stream
bodies.py            what of a body is payload: AMQP 1.0 or plain
sharing.py           the one Environment of a run
"""

from flowstream.connectors.dead_letter import DeadLetter
from flowstream.connectors.stream_producer import StreamProducer
from flowstream.connectors.stream_sink import StreamSink

__all__ = ["DeadLetter", "StreamProducer", "StreamSink"]
