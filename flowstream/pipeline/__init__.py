"""The Broadway: declare a pipeline, run it, look at it. Knows no RabbitMQ.

    pipeline = Pipeline("orders", producer, retry=Retry(attempts=3), on_failure=Halt())

    @pipeline.processor(concurrency=4, partition_by=lambda m: m.data.customer_id)
    async def validate(message: Message[Order]) -> None: ...

    @pipeline.batcher(size=500, batch_timeout=1.0)
    def load(batch: Batch[Order]) -> None: ...

    result = await pipeline.run(url=...)                        # raises what made it fail
    async with pipeline.start(url=..., telemetry=...) as running:
        running.statistics() -> Statistics                      # everything countable, a snapshot
        running.topology() -> Topology
        running.pause(by="alice"); running.resume(); running.resize("processor", 8)
        running.rate_limit = RateLimit(messages=1000)
        running.stop()                                          # graceful; returns at once
        running.abort()                                         # no drain (a second signal)
        await running.wait_idle(2.0)                            # all settled, quiet for 2 s
        result = await running.wait()                           # RunResult; result.error, if any

The way of a message: producer -> `Intake`/`SourcePartition` (admitted into the window, decoded)
-> processors -> batchers -> batch processors -> acknowledger (watermark) -> committer. Failures
leave it for `Retry`, then for a `FailurePolicy`. Files here without `stages/` in their path are
pure or declarative; each stage has a file there.
"""

from flowstream.pipeline.advice import Advice
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.context import RunContext
from flowstream.pipeline.deciders.discards import Place, named, parse_places
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.declaration import Declaration, Declared, StageTopology, Topology
from flowstream.pipeline.iterable import IterableProducer
from flowstream.pipeline.message import Codec, Failure, Message
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions
from flowstream.pipeline.pipeline import Pipeline
from flowstream.pipeline.policies import Backoff, Drop, FailurePolicy, Halt, OpenPolicy, Retry
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
from flowstream.pipeline.sink import Sink, Write
from flowstream.pipeline.state.halting import options as discard_options
from flowstream.pipeline.state.log_context import add_place
from flowstream.pipeline.state.reasons import Reason
from flowstream.pipeline.state.run_state import Signal

__all__ = [
    "Acknowledger",
    "Advice",
    "Backlog",
    "Backoff",
    "Batch",
    "BatcherOptions",
    "Codec",
    "Declaration",
    "Declared",
    "Drop",
    "Failure",
    "FailurePolicy",
    "Halt",
    "Intake",
    "IterableProducer",
    "Message",
    "OpenPolicy",
    "PartitionStatistics",
    "Pipeline",
    "PipelineOptions",
    "Place",
    "ProcessorOptions",
    "Producer",
    "RateLimit",
    "Reason",
    "Retry",
    "RunContext",
    "RunResult",
    "RunningPipeline",
    "Signal",
    "Sink",
    "SourcePartition",
    "StageStatistics",
    "StageTopology",
    "Statistics",
    "Topology",
    "Write",
    "add_place",
    "catch_up",
    "discard_options",
    "named",
    "parse_places",
    "running_pipelines",
    "tuned_collector",
]
