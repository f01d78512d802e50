"""Every option of a pipeline, a processor and a batcher: one schema that checks and documents.

A field's metadata holds its check and its text; `check` reports the first wrong option by its
path, such as `pipeline 'orders' > batcher 'load' > size`.
"""

# ruff: noqa: RUF009 - `option` is dataclasses.field with its check and text
from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flowstream.checks import MAX_NAME, is_name, is_seconds, is_whole
from flowstream.errors import ConfigurationError
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.policies import FailurePolicy, Halt, Retry
from flowstream.texts import shown

Check = tuple[str, Callable[[Any], bool]]
"""What is expected, in words, and the test of it."""


def _whole(minimum: int) -> Check:
    return f"a whole number of at least {minimum}", lambda value: is_whole(value, minimum)


def _or_none(check: Check) -> Check:
    text, test = check
    return f"{text}, or None", lambda value: value is None or test(value)


def _a(kind: type, text: str) -> Check:
    return text, lambda value: isinstance(value, kind)


def _plain(value: Any) -> bool:
    return callable(value) and not inspect.iscoroutinefunction(value)


def _split(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and _plain(value[1])


def _opens(value: Any) -> bool:
    return _plain(value) and not inspect.isasyncgenfunction(value)


SECONDS: Check = ("seconds greater than 0", is_seconds)
FUNCTION: Check = ("a function of one message, a plain def", _plain)
LIFESPAN: Check = ("a function decorated with @asynccontextmanager", _opens)
NAME: Check = (f"a name of 1 to {MAX_NAME} bytes", is_name)
FLAG: Check = _a(bool, "True or False")
SIZE: Check = (
    "a whole number of at least 1, or (accumulator, a plain def)",
    lambda value: _whole(1)[1](value) or _split(value),
)


def option(check: Check, text: str, default: Any = dataclasses.MISSING) -> Any:
    return field(default=default, metadata={"check": check, "text": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """Options of `Pipeline(name, producer, ...)`."""

    retry: Retry | None = option(
        _or_none(_a(Retry, "a Retry(...)")), "try failed messages again", None
    )
    on_failure: FailurePolicy = option(
        _a(FailurePolicy, "a failure policy: Halt(), Drop() or DeadLetter(...)"),
        "what happens to a message that keeps failing",
        Halt(),
    )
    rate_limit: RateLimit | None = option(
        _or_none(_a(RateLimit, "a RateLimit(...)")), "messages or bytes per interval", None
    )
    max_in_flight: int = option(_whole(1), "unsettled messages at most", 10_000)
    max_in_flight_bytes: int = option(_whole(1), "bytes of unsettled messages at most", 64 << 20)
    drain_timeout: float = option(SECONDS, "how long a stop may wait for what is in flight", 25.0)
    lifespan: Any = option(
        _or_none(LIFESPAN), "an async context manager that opens what handlers need", None
    )
    partition_by: Any = option(
        _or_none(FUNCTION), "messages of one key stay in order through all stages", None
    )
    commit_every: int = option(_whole(1), "settled messages between two commits", 10_000)
    commit_interval: float = option(SECONDS, "the longest time between two commits", 5.0)
    max_threads: int = option(
        _whole(1), "worker threads of plain `def` handlers, with those that hang", 40
    )
    max_restarts: int = option(_whole(0), "restarts of a crashed stage in restart_window", 3)
    restart_window: float = option(SECONDS, "the time max_restarts counts in", 5.0)
    stuck_after: float = option(SECONDS, "report a handler that takes longer than this", 60.0)
    mask: Any = option(
        _or_none(FUNCTION),
        "what may be shown of a failed message's body: a function of the message, None for nothing",
        None,
    )
    slow_after: float = option(SECONDS, "log a handler that takes longer than this, at info", 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorOptions:
    """Options of `@pipeline.processor(...)`."""

    name: str = option(NAME, "the stage's name in metrics", "processor")
    concurrency: int = option(_whole(1), "workers; 1 keeps the stream's order", 1)
    partition_by: Any = option(_or_none(FUNCTION), "instead of the pipeline's partition_by", None)
    max_demand: int = option(_whole(1), "messages handed to a worker at once, at most", 1000)
    timeout: float | None = option(_or_none(SECONDS), "seconds a message may take", None)
    processes: bool = option(FLAG, "run a CPU-bound `def` handler in worker processes", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherOptions:
    """Options of `@pipeline.batcher(...)` and `pipeline.sink(...)`."""

    name: str = option(NAME, "what message.to(...) calls it", "default")
    size: Any = option(SIZE, "messages in a batch, or when a batch is full", 100)
    max_bytes: int | None = option(_or_none(_whole(1)), "bytes in a batch, at most", None)
    batch_timeout: float = option(SECONDS, "seconds from a batch's first message to its end", 1.0)
    concurrency: int = option(_whole(1), "batches handled at the same time", 1)
    partition_by: Any = option(_or_none(FUNCTION), "instead of the pipeline's partition_by", None)
    timeout: float | None = option(_or_none(SECONDS), "seconds a batch may take", None)
    processes: bool = option(FLAG, "run a CPU-bound `def` handler in worker processes", False)


Options = PipelineOptions | ProcessorOptions | BatcherOptions


def check(options: Options, path: str) -> None:
    """Raise ConfigurationError for the first option whose value cannot work."""
    for item in dataclasses.fields(options):
        check_value(item.metadata["check"], getattr(options, item.name), f"{path} > {item.name}")


def check_value(rule: Check, value: Any, path: str) -> None:
    """Raise ConfigurationError unless `value` passes."""
    expected, test = rule
    if not test(value):
        raise ConfigurationError(f"{path}: expected {expected}, got {shown(value, 200)}")


def make(kind: type[Any], values: dict[str, Any], path: str) -> Any:
    """Options from keyword arguments, checked; an unknown name is an error that names it."""
    known = [item.name for item in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise ConfigurationError(
                f"{path} > {name}: there is no such option; there are {', '.join(known)}"
            )
    options = kind(**values)
    check(options, path)
    return options


def describe(kind: type[Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, default, what is expected, what it does) of every option, for docs and help."""
    for item in dataclasses.fields(kind):
        expected, _ = item.metadata["check"]
        yield item.name, repr(item.default), expected, item.metadata["text"]
