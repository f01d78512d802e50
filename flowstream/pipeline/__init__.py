"""Pipelines as in Broadway: declare one, run it, watch it. This room does not know RabbitMQ.

    pipeline = Pipeline("orders", producer, retry=Retry(attempts=3), on_failure=Halt())

    @pipeline.processor(concurrency=4, partition_by=lambda m: m.data.customer_id)
    async def validate(message: Message[Order]) -> None: ...

    @pipeline.batcher(size=500, batch_timeout=1.0)
    def load(batch: Batch[Order]) -> None: ...

    result = await pipeline.run(url=...)                        # raises what made it fail
    async with pipeline.start(url=..., telemetry=...) as running:
        running.statistics() -> Statistics                      # a snapshot of all counters
        running.topology() -> Topology
        running.pause(by="alice"); running.resume(); running.resize("processor", 8)
        running.rate_limit = RateLimit(messages=1000)
        running.stop()                                          # graceful; returns at once
        running.abort()                                         # no drain (a second signal)
        await running.wait_idle(2.0)                            # all settled, quiet for 2 s
        result = await running.wait()                           # RunResult; result.error, if any

It promises that every message is settled exactly once in a run, that an offset is committed only
when all messages up to it are settled, that keys keep their order, and that memory and time are
bounded whatever a handler does.

What flows between the stages is a slice (slice.py). The path of a message, in the order to read it:

    producer.py                 what a source sends, and what it is called with when messages settle
    stages/source.py            admitted to the window, decoded, made part of a slice
    slice.py, delivery.py       the slice; which messages are settled; the watermark
    stages/processor.py         queued, handled by a worker, retried, passed on
    stages/router.py            to the batcher of its route
    stages/batcher.py           into an open batch, which is closed by size, bytes or age
    stages/batch_processor.py   the batch is handled by a worker
    stages/acknowledger.py      settled: its room in the window is free, the watermark moves
    stages/committer.py         the offset is stored, and verified at the end

A message that fails leaves this path: it is retried, and after its last attempt it goes to a
failure policy (stages/failure_handler.py). The decisions of the stages are pure functions and
classes in deciders/ (queues, batching, schedules, the window). handlers/ runs users' code: workers,
threads, processes, timeouts, watchdogs. state/ is what the stages of a run share. running/ builds
the stages (assembly.py), runs them (run.py), drains them (drain.py) and shows them (control.py,
report.py). declaration.py holds what is declared, without any running part, and ends.py says what
each of its ends guarantees; pipeline.py is the class that users see.
"""

from flowstream.backoff import Backoff
from flowstream.pipeline.advice import Advice
from flowstream.pipeline.annotations import Signature
from flowstream.pipeline.arrow import ORIGIN as ORIGIN_COLUMNS
from flowstream.pipeline.arrow import is_schema
from flowstream.pipeline.arrow import pyarrow as require_pyarrow
from flowstream.pipeline.arrow import table_of as arrow_table
from flowstream.pipeline.batch import Batch, Origin
from flowstream.pipeline.context import RunContext
from flowstream.pipeline.deciders.discards import Place, named, parse_places
from flowstream.pipeline.deciders.key_load import HotKey
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.deciders.rolling import Rolling
from flowstream.pipeline.declaration import Declaration, Declared, StageTopology, Topology
from flowstream.pipeline.ends import End, ends_of
from flowstream.pipeline.guarantee import EXACTLY_ONCE, Guarantee, Level
from flowstream.pipeline.handler_types import (
    BatchHandler,
    FailureHook,
    MessageHandler,
    PrepareHook,
    SliceHandler,
)
from flowstream.pipeline.handlers.threads import thread_limiter, threads_run
from flowstream.pipeline.iterable import IterableProducer
from flowstream.pipeline.message import Codec, Failure, Message
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions
from flowstream.pipeline.pipeline import Pipeline
from flowstream.pipeline.policies import Drop, FailurePolicy, Halt, OpenPolicy, Retry
from flowstream.pipeline.producer import Acknowledger, Backlog, Intake, Producer, SourcePartition
from flowstream.pipeline.running.control import RunningPipeline, running_pipelines
from flowstream.pipeline.running.gc_tuning import tuned_collector
from flowstream.pipeline.running.lag import catch_up
from flowstream.pipeline.running.statistics import (
    PartitionStatistics,
    RunResult,
    StageStatistics,
    Statistics,
)
from flowstream.pipeline.sink import OrderedWrite, Sink, Turn, Write
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.state.halting import options as discard_options
from flowstream.pipeline.state.hooks import RunHooks
from flowstream.pipeline.state.log_context import add_place
from flowstream.pipeline.state.reasons import Reason, merged_reasons
from flowstream.signals import Signal

__all__ = [
    "EXACTLY_ONCE",
    "ORIGIN_COLUMNS",
    "Acknowledger",
    "Advice",
    "Backlog",
    "Backoff",
    "Batch",
    "BatchHandler",
    "BatcherOptions",
    "Codec",
    "Declaration",
    "Declared",
    "Drop",
    "End",
    "Failure",
    "FailureHook",
    "FailurePolicy",
    "Guarantee",
    "Halt",
    "HotKey",
    "Intake",
    "IterableProducer",
    "Level",
    "Message",
    "MessageHandler",
    "OpenPolicy",
    "OrderedWrite",
    "Origin",
    "PartitionStatistics",
    "Pipeline",
    "PipelineOptions",
    "Place",
    "PrepareHook",
    "ProcessorOptions",
    "Producer",
    "RateLimit",
    "Reason",
    "Retry",
    "Rolling",
    "RunContext",
    "RunHooks",
    "RunResult",
    "RunningPipeline",
    "Signal",
    "Signature",
    "Sink",
    "Slice",
    "SliceHandler",
    "SourcePartition",
    "StageStatistics",
    "StageTopology",
    "Statistics",
    "Topology",
    "Turn",
    "Write",
    "add_place",
    "arrow_table",
    "catch_up",
    "discard_options",
    "ends_of",
    "is_schema",
    "merged_reasons",
    "named",
    "parse_places",
    "require_pyarrow",
    "running_pipelines",
    "thread_limiter",
    "threads_run",
    "tuned_collector",
]
