"""The face of a pipeline: decorators build its declaration, `start` and `run` run it.

Every value is checked while it is declared, so that the traceback shows the line to change.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar, overload

from flowstream.checks import check_flag, check_kind
from flowstream.errors import ConfigurationError, DuplicateName
from flowstream.pipeline.advice import Advice, advice_for
from flowstream.pipeline.annotations import Handler, Signature, inspect_handler
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.declaration import Declaration, Declared, Topology, check_size
from flowstream.pipeline.handlers.processes import check_importable
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import (
    NAME,
    BatcherOptions,
    PipelineOptions,
    ProcessorOptions,
    check_value,
    make,
)
from flowstream.pipeline.payload import decoder
from flowstream.pipeline.policies import FailurePolicy, Halt, Retry
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.running.control import RunningPipeline, start
from flowstream.pipeline.running.statistics import RunResult
from flowstream.pipeline.sink import Sink
from flowstream.pipeline.state.reasons import Mask
from flowstream.telemetry import Telemetry
from flowstream.texts import shown, type_name

F = TypeVar("F", bound=Handler)
KeyFunction = Callable[[Message[Any]], Any]


class Pipeline:
    """A declared pipeline: a producer, one processor, any number of batchers.

    Declaring runs nothing. `run` (or `start`) does, as often as wanted, but once at a time.
    Every mistake in a declaration is a ConfigurationError that names the place. `module` is the
    name of the module that declares it: `flowstream run` of another one that imports it does not
    run it.
    """

    def __init__(
        self,
        name: str,
        producer: Producer,
        *,
        retry: Retry | None = None,
        on_failure: FailurePolicy = Halt(),  # noqa: B008 - a frozen value
        rate_limit: RateLimit | None = None,
        max_in_flight: int = 10_000,
        max_in_flight_bytes: int = 64 << 20,
        drain_timeout: float = 25.0,
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        partition_by: KeyFunction | None = None,
        commit_every: int = 10_000,
        commit_interval: float = 5.0,
        max_threads: int = 40,
        max_restarts: int = 3,
        restart_window: float = 5.0,
        stuck_after: float = 60.0,
        mask: Mask | None = None,
        slow_after: float = 10.0,
    ) -> None:
        check_value(NAME, name, f"pipeline {shown(name)} > name")
        path = f"pipeline {name!r}"
        if not isinstance(producer, Producer):
            raise ConfigurationError(
                f"{path} > producer: expected a Producer such as StreamProducer({name!r}), "
                f"got {shown(producer)}"
            )
        values: dict[str, Any] = {
            "retry": retry,
            "on_failure": on_failure,
            "rate_limit": rate_limit,
            "max_in_flight": max_in_flight,
            "max_in_flight_bytes": max_in_flight_bytes,
            "drain_timeout": drain_timeout,
            "lifespan": lifespan,
            "partition_by": partition_by,
            "commit_every": commit_every,
            "commit_interval": commit_interval,
            "max_threads": max_threads,
            "max_restarts": max_restarts,
            "restart_window": restart_window,
            "stuck_after": stuck_after,
            "mask": mask,
            "slow_after": slow_after,
        }
        self.declaration = Declaration(
            name=name,
            module=sys._getframe(1).f_globals.get("__name__", ""),
            producer=producer,
            options=make(PipelineOptions, values, path),
        )
        self.running: RunningPipeline | None = None
        self._is_started = False

    @property
    def name(self) -> str:
        return self.declaration.name

    @property
    def producer(self) -> Producer:
        return self.declaration.producer

    @property
    def options(self) -> PipelineOptions:
        """The options in force, those of `configure` included."""
        return self.declaration.options

    def _declare(self, **parts: Any) -> None:
        self.declaration = dataclasses.replace(self.declaration, **parts)

    # -- handlers

    @overload
    def processor(self, handler: F, /) -> F: ...

    @overload
    def processor(
        self, *, name: str = "processor", concurrency: int = 1,
        partition_by: KeyFunction | None = None, max_demand: int = 1000,
        timeout: float | None = None, processes: bool = False,
    ) -> Callable[[F], F]: ...  # fmt: skip

    def processor(self, *handler: Any, **options: Any) -> Any:
        """Declare the handler of messages, `async def` or plain `def` (run in worker threads).

        What it returns becomes the message's data; returning nothing leaves it. `timeout` is in
        seconds per message.
        """
        path = f"{self.declaration.path} > processor"
        checked: ProcessorOptions = make(ProcessorOptions, options, path)

        def declare(function: F) -> F:
            other = self.declaration.processor
            if other is not None:
                raise DuplicateName(
                    f"{path}: a pipeline has one processor, and {other.signature.name} is declared "
                    "already"
                )
            signature = inspect_handler(function, Message, path)
            decoder(signature.payload, handler=f"{path}: {signature.name}")
            _check_processes(function, checked, signature, path)
            self._declare(processor=Declared(function, signature, checked))
            return function

        return declare(*handler) if handler else declare

    @overload
    def batcher(self, handler: F, /) -> F: ...

    @overload
    def batcher(
        self, name: str = "default", *, size: int | tuple[Any, Any] = 100,
        max_bytes: int | None = None, batch_timeout: float = 1.0, concurrency: int = 1,
        partition_by: KeyFunction | None = None, timeout: float | None = None,
        processes: bool = False,
    ) -> Callable[[F], F]: ...  # fmt: skip

    def batcher(self, *name: Any, **options: Any) -> Any:
        """Declare a handler of batches, `async def` or plain `def`.

        A batch is closed at `size` messages, before `max_bytes` are exceeded, or `batch_timeout`
        seconds after its first message. `size` may also be (accumulator, function), where
        `function(message, accumulator)` returns (is the batch full, next accumulator).
        `timeout` is in seconds per batch, for its handler.
        """
        if name and callable(name[0]):
            return self._declare_batcher({"name": "default"})(name[0])
        return self._declare_batcher({"name": name[0] if name else "default", **options})

    def _declare_batcher(self, options: dict[str, Any]) -> Callable[[F], F]:
        path = f"{self.declaration.path} > batcher {options['name']!r}"
        checked = self._check_batcher(options, path)

        def declare(function: F) -> F:
            signature = inspect_handler(function, Batch, path)
            _check_processes(function, checked, signature, path)
            self._add_batcher(Declared(function, signature, checked), path)
            return function

        return declare

    def sink(self, name: str, sink: Sink, **options: Any) -> None:
        """Declare a batcher that publishes its batches; takes the options of `batcher`."""
        path = f"{self.declaration.path} > sink {name!r}"
        if not isinstance(sink, Sink):
            raise ConfigurationError(
                f"{path}: expected a Sink such as StreamSink(...), got {shown(sink)}"
            )
        checked = self._check_batcher({"name": name, **options}, path)
        kind = type_name(sink)
        signature = Signature(name=kind, is_async=True, payload=Any, resource=None)
        self._add_batcher(Declared(_unused, signature, checked, sink), path)

    def _check_batcher(self, options: dict[str, Any], path: str) -> BatcherOptions:
        checked: BatcherOptions = make(BatcherOptions, options, path)
        check_size(checked, self.options, path)
        return checked

    def _add_batcher(self, declared: Declared, path: str) -> None:
        name = declared.options.name
        batchers = self.declaration.batchers
        if name in batchers:
            raise DuplicateName(f"{path}: there are two batchers named {name!r}")
        self._declare(batchers=MappingProxyType({**batchers, name: declared}))

    def prepare(self, handler: F) -> F:
        """Declare what sees a slice (`list[Message]`) before its messages are processed."""
        return self._declare_once("prepare", handler, list)

    def on_failed(self, handler: F) -> F:
        """Declare what sees each Failure before the policy; it may return another policy."""
        return self._declare_once("on_failed", handler, Failure)

    def _declare_once(self, what: str, handler: F, wraps: type) -> F:
        path = f"{self.declaration.path} > {what}"
        if getattr(self.declaration, what) is not None:
            raise DuplicateName(f"{path}: it is declared twice")
        signature = inspect_handler(handler, wraps, path, depth=3)
        self._declare(**{what: Declared(handler, signature)})
        return handler

    def check(self) -> None:
        """Raise ConfigurationError for what only the whole declaration shows."""
        self.declaration.check()

    def advice(self) -> list[Advice]:
        """Options that work, and hardly do what their author means; `start` logs them.

        Raises ConfigurationError where `check` would.
        """
        self.check()
        return advice_for(self.declaration)

    def configure(self, **options: Any) -> None:
        """Change options of the declaration before a run, as a deployment's configuration does.

        Takes those of `Pipeline(...)`. Raises ConfigurationError as the declaration itself would.
        """
        values = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(self.options)}
        changed: PipelineOptions = make(PipelineOptions, values | options, self.declaration.path)
        for name, declared in self.declaration.batchers.items():
            check_size(declared.options, changed, f"{self.declaration.path} > batcher {name!r}")
        self._declare(options=changed)

    # -- running

    def start(
        self,
        *,
        url: Any = None,
        environment: Any = None,
        telemetry: Telemetry | None = None,
        tune_gc: bool = False,
        discard: Iterable[str | tuple[str, int]] = (),
    ) -> AbstractAsyncContextManager[RunningPipeline]:
        """Start the pipeline: `async with pipeline.start(url=...) as running:`.

        The body runs beside the pipeline. When it ends the pipeline is stopped and drained, and
        its error, if it had one that `running.wait` did not report, is raised. `url` is the
        broker's address; `environment` is one that is open, and stays open. Without either it is
        FLOWSTREAM_URL or localhost.

        `discard` names messages to settle as discarded when they come, without handling or
        decoding them: "STREAM@OFFSET", or (stream, offset) as `Halted.messages` has them.
        """
        if url is not None and environment is not None:
            raise ConfigurationError(
                "url= and environment= exclude each other: the environment has an address already"
            )
        check_kind("telemetry", telemetry, Telemetry, "a Telemetry(...)", optional=True)
        check_flag("tune_gc", tune_gc)
        self.check()
        return self._start(
            url=url, environment=environment, telemetry=telemetry, tune_gc=tune_gc,
            discard=discard,
        )  # fmt: skip

    async def run(
        self,
        *,
        url: Any = None,
        environment: Any = None,
        telemetry: Telemetry | None = None,
        tune_gc: bool = False,
        discard: Iterable[str | tuple[str, int]] = (),
    ) -> RunResult:
        """Run until a finite source has ended, somebody stops the pipeline, or it fails.

        `discard` is as in `start`. Raises what made it fail: Halted, DrainTimeout,
        OffsetTruncated, a client's error, ...
        """
        async with self.start(
            url=url,
            environment=environment,
            telemetry=telemetry,
            tune_gc=tune_gc,
            discard=discard,
        ) as running:
            return (await running.wait()).raise_for_error()
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _start(self, **options: Any) -> AsyncIterator[RunningPipeline]:
        if self._is_started:
            raise ConfigurationError(f"{self.declaration.path} is running already")
        self._is_started = True
        try:
            async with start(self.declaration, **options, made=self._made) as running:
                yield running
        finally:
            self.running, self._is_started = None, False

    def _made(self, running: RunningPipeline) -> None:
        self.running = running

    def topology(self) -> Topology:
        """The stages as declared."""
        return self.declaration.topology()

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}>"


async def _unused(batch: Any) -> None:
    raise AssertionError("a sink has no handler")


def _check_processes(handler: Handler, options: Any, signature: Signature, path: str) -> None:
    if options.processes and signature.is_async:
        raise ConfigurationError(f"{path} > processes: {signature.name} must be a plain def")
    if options.processes and signature.resource is not None:
        raise ConfigurationError(f"{path} > processes: resources cannot go to other processes")
    if options.processes:
        check_importable(handler, path)
