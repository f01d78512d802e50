"""Every option of a pipeline and its stages, written once (see flowstream/schema.py).

The signatures of `Pipeline(...)`, `processor`, `batcher`, `sink` and `configure`, their checks, the
settings of a deployment, `flowstream config` and the documentation follow from these classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from flowstream.checks import is_whole
from flowstream.pipeline.annotations import signature_of
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.message import Message
from flowstream.pipeline.policies import FailurePolicy, Halt, Retry
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.sink import Sink
from flowstream.pipeline.state.reasons import Mask
from flowstream.schema import NAME, SECONDS, Rule, a, function_of, is_plain, whole

KeyFunction: TypeAlias = Callable[[Message[Any]], Any]
"""The key of a message: messages of one key keep their order."""
Full: TypeAlias = Callable[[Message[Any], Any], tuple[bool, Any]]
"""(message, accumulator) -> (is the batch full with it, next accumulator)"""
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


def _fills(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and is_plain(value[1])


def _opens(value: Any) -> bool:
    if not is_plain(value) or inspect.isasyncgenfunction(value):
        return False
    try:
        signature_of(value).bind()
    except TypeError:  # a required parameter, such as the `app` of web frameworks
        return False
    except ValueError:  # a class in C, whose signature is not known
        return True
    return True


FUNCTION = function_of("one message")
LIFESPAN = Rule("a function without parameters, decorated with @asynccontextmanager", _opens)
SIZE = Rule(
    "a whole number of at least 1 (messages), or (accumulator, a plain def)",
    lambda value: value is None or is_whole(value, 1) or _fills(value),
)
MOST_WORKERS = 100_000
"""Each worker is a task: many more would take the process's memory before the first message."""
HALT = Halt()
POLICY = a(FailurePolicy, "a failure policy: Halt(), Drop() or DeadLetter(...)")


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """Options of `Pipeline(name, producer, ...)`."""

    retry: Annotated[Retry | None, "try failed messages again"] = None
    on_failure: Annotated[
        FailurePolicy, POLICY, "what happens to a message after its last attempt"
    ] = HALT
    max_in_flight: Annotated[int, whole(1, unit="messages"), "unsettled messages at most"] = 10_000
    max_in_flight_bytes: Annotated[
        int, whole(1, unit="bytes"), "bytes of unsettled messages at most"
    ] = 64 << 20
    rate_limit: Annotated[RateLimit | None, "messages or bytes per interval"] = None
    drain_timeout: Annotated[
        float, SECONDS, "seconds that a stop may wait for what is in flight"
    ] = 25.0
    lifespan: Annotated[
        Lifespan | None, LIFESPAN, "an async context manager that opens what handlers need"
    ] = None
    partition_by: Annotated[
        KeyFunction | None, FUNCTION, "messages of one key stay in order through all stages"
    ] = None
    commit_every: Annotated[
        int, whole(1, unit="messages"), "settled messages between two commits"
    ] = 10_000
    commit_interval: Annotated[float, SECONDS, "seconds between two commits at most"] = 5.0
    max_threads: Annotated[
        int,
        whole(1, unit="threads"),
        "worker threads of plain `def` handlers, including those that hang",
    ] = 40
    max_restarts: Annotated[
        int, whole(0, unit="restarts"), "restarts of a crashed stage within restart_window"
    ] = 3
    restart_window: Annotated[float, SECONDS, "seconds that max_restarts counts in"] = 5.0
    stuck_after: Annotated[float, SECONDS, "seconds after which a handler is reported as stuck"] = (
        60.0
    )
    mask: Annotated[
        Mask | None,
        FUNCTION,
        "what may be shown of a failed message's body: a function of the message, None for nothing",
    ] = None
    slow_after: Annotated[
        float, SECONDS, "seconds after which a handler is logged as slow, at info"
    ] = 10.0


@dataclass(frozen=True)
class PipelineArguments(PipelineOptions):
    """What `Pipeline(...)` takes."""

    name: Annotated[str, NAME, "names it in logs and metrics; offsets are stored under the name"]
    producer: Annotated[
        Producer,
        a(Producer, 'a Producer such as StreamProducer("orders")'),
        "where messages come from",
    ]


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options that a processor and a batcher share, with one meaning."""

    concurrency: Annotated[
        int,
        whole(1, MOST_WORKERS, unit="workers"),
        "messages or batches handled at a time; 1 keeps the order",
    ] = 1
    partition_by: Annotated[
        KeyFunction | None, FUNCTION, "instead of the pipeline's partition_by"
    ] = None
    timeout: Annotated[
        float | None, SECONDS, "seconds that the handler may take for a message or batch"
    ] = None


@dataclass(frozen=True, kw_only=True)
class HandlerOptions(StageOptions):
    """Options of stages that have a handler of yours."""

    processes: Annotated[bool, "run a CPU-bound `def` handler in worker processes"] = False


@dataclass(frozen=True, kw_only=True)
class ProcessorOptions(HandlerOptions):
    """Options of `@pipeline.processor(...)`."""

    name: Annotated[str, NAME, "the stage's name in metrics"] = "processor"
    max_demand: Annotated[
        int, whole(1, unit="messages"), "messages handed to a worker at once, at most"
    ] = 1000
    slices: Annotated[bool, "the handler gets whole slices, annotated Slice[T]"] = False


@dataclass(frozen=True, kw_only=True)
class BatchOptions(StageOptions):
    """When a batch is closed."""

    size: Annotated[
        int | tuple[Any, Full] | None, SIZE, "messages in a batch, or when it is full; None: any"
    ] = 100
    max_bytes: Annotated[int | None, whole(1, unit="bytes"), "bytes in a batch, at most"] = None
    batch_timeout: Annotated[float, SECONDS, "seconds from a batch's first message to its end"] = (
        1.0
    )


@dataclass(frozen=True)
class BatcherOptions(BatchOptions, HandlerOptions):
    """Options of `@pipeline.batcher(...)`."""

    name: Annotated[str, NAME, "what message.to(...) calls it"] = "default"


# -- for type checkers: the same options, where they decide what the handler takes and returns

_NEVER = "never"
_ALWAYS = "always"


@dataclass(frozen=True, kw_only=True)
class LocalProcessorOptions(ProcessorOptions):
    """`@pipeline.processor(...)` of a handler of messages, in this process."""

    processes: Annotated[Literal[False], _NEVER] = False
    slices: Annotated[Literal[False], _NEVER] = False


@dataclass(frozen=True, kw_only=True)
class SliceProcessorOptions(ProcessorOptions):
    """`@pipeline.processor(slices=True)`."""

    processes: Annotated[Literal[False], _NEVER] = False
    slices: Annotated[Literal[True], _ALWAYS] = field()


@dataclass(frozen=True, kw_only=True)
class ProcessesProcessorOptions(ProcessorOptions):
    """`@pipeline.processor(processes=True)`."""

    processes: Annotated[Literal[True], _ALWAYS] = field()
    slices: Annotated[Literal[False], _NEVER] = False


@dataclass(frozen=True)
class LocalBatcherOptions(BatcherOptions):
    """`@pipeline.batcher(...)` of a handler in this process."""

    _: KW_ONLY
    processes: Annotated[Literal[False], _NEVER] = False


@dataclass(frozen=True)
class ProcessesBatcherOptions(BatcherOptions):
    """`@pipeline.batcher(processes=True)`."""

    _: KW_ONLY
    processes: Annotated[Literal[True], _ALWAYS] = field()


@dataclass(frozen=True)
class SinkArguments(BatchOptions):
    """What `pipeline.sink(...)` takes."""

    name: Annotated[str, NAME, "what message.to(...) calls it"]
    sink: Annotated[Sink, a(Sink, "a Sink such as StreamSink(...)"), "where batches are written"]
