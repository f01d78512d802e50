"""Helpers for users' tests; no plugin is needed, they are context managers and plain objects.

    tester.py           PipelineTester: push messages, see what became of each
    results.py          ... as values: RunReport, Outcome, HandledBatch, DeadLettered
    memory.py           MemoryEnvironment: the client's interface to streams in memory
    memory_broker.py    ... the broker behind it: streams, stored offsets and faults
    memory_stream.py    ... one stream; memory_consumers.py, memory_publishers.py
    markers.py          Crash(), Disconnect(), Pause(seconds) among the messages of a stream
    clock.py            virtual time: a timeout of an hour passes in a millisecond
    brokers.py          the embedded broker, in memory on a free port
    acknowledger.py     CallerAcknowledger, for tests of your own producers
    recording.py        how the tester records a run
    pytest_plugin.py    fixtures, loaded if a conftest names it

This file is the room's contract.
"""

from flowstream.testing.acknowledger import CallerAcknowledger
from flowstream.testing.brokers import broker, broker_in_thread
from flowstream.testing.clock import VirtualLoop, run_virtual, threads_take_time, virtual_time
from flowstream.testing.markers import Crash, Disconnect, Marker, Pause
from flowstream.testing.memory import MemoryEnvironment
from flowstream.testing.memory_broker import Crashed, MemoryDelivery
from flowstream.testing.memory_consumers import (
    MemoryConsumer,
    MemoryLagProbe,
    MemorySuperStreamConsumer,
)
from flowstream.testing.memory_publishers import MemoryPublisher, MemorySuperStreamPublisher
from flowstream.testing.memory_stream import MemoryStream
from flowstream.testing.results import DeadLettered, HandledBatch, Outcome, RunReport
from flowstream.testing.tester import PipelineTester, StillBusy

__all__ = [
    "CallerAcknowledger",
    "Crash",
    "Crashed",
    "DeadLettered",
    "Disconnect",
    "HandledBatch",
    "Marker",
    "MemoryConsumer",
    "MemoryDelivery",
    "MemoryEnvironment",
    "MemoryLagProbe",
    "MemoryPublisher",
    "MemoryStream",
    "MemorySuperStreamConsumer",
    "MemorySuperStreamPublisher",
    "Outcome",
    "Pause",
    "PipelineTester",
    "RunReport",
    "StillBusy",
    "VirtualLoop",
    "broker",
    "broker_in_thread",
    "run_virtual",
    "threads_take_time",
    "virtual_time",
]
