"""`Pipeline`: its decorators build the declaration, `start` and `run` run it.

Every value is checked when it is declared, so the traceback shows the line to change.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType, NoneType
from typing import Any, overload

from flowstream.errors import ConfigurationError, DuplicateName
from flowstream.pipeline.advice import Advice, advice_for
from flowstream.pipeline.annotations import (
    Handler,
    Signature,
    bare_handler,
    inspect_handler,
)
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.declaration import Declaration, Declared, Topology, check_size
from flowstream.pipeline.handler_types import (
    BatchHandlerT,
    DeclaresBatcher,
    DeclaresProcessesBatcher,
    DeclaresProcessesProcessor,
    DeclaresProcessor,
    DeclaresSliceProcessor,
    FailureHookT,
    MessageHandlerT,
    PrepareHookT,
)
from flowstream.pipeline.handlers.calls import interrupt_alone
from flowstream.pipeline.handlers.processes import check_importable
from flowstream.pipeline.handlers.worker_process import imports_main
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import (
    BatcherOptions,
    BatchOptions,
    LocalBatcherOptions,
    LocalProcessorOptions,
    PipelineArguments,
    PipelineOptions,
    ProcessesBatcherOptions,
    ProcessesProcessorOptions,
    ProcessorOptions,
    SinkArguments,
    SliceProcessorOptions,
)
from flowstream.pipeline.payload import decoder
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.running.control import RunningPipeline, start
from flowstream.pipeline.running.statistics import RunResult
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.state.hooks import RunHooks
from flowstream.schema import FLAG, a, make, part, shows, takes
from flowstream.telemetry import Telemetry
from flowstream.texts import shown, type_name

TELEMETRY = a((Telemetry, NoneType), "a Telemetry(...) or None")


class Pipeline:
    """A declared pipeline: a producer, one processor, any number of batchers.

    Declaring runs nothing. `run` and `start` may be called again and again, but not while a run
    lasts. Every mistake in a declaration is a ConfigurationError that names the place. `module` is
    the name of the module that declares it: `flowstream run` of another one that imports it does
    not run it.
    """

    @takes(PipelineArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        named = arguments[0] if arguments else values.get("name")
        declared = make(PipelineArguments, arguments, values, f"pipeline {shown(named)}")
        self.declaration: Declaration = Declaration(
            name=declared.name,
            module=sys._getframe(1).f_globals.get("__name__", ""),
            producer=declared.producer,
            options=part(PipelineOptions, declared),
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
        """The current options, including those of `configure`."""
        return self.declaration.options

    def _declare(self, **parts: Any) -> None:
        self.declaration = dataclasses.replace(self.declaration, **parts)

    # -- handlers

    @overload
    @takes(LocalProcessorOptions)
    def processor(self, *arguments: Any, **values: Any) -> DeclaresProcessor: ...

    @overload
    @takes(SliceProcessorOptions)
    def processor(self, *arguments: Any, **values: Any) -> DeclaresSliceProcessor: ...

    @overload
    @takes(ProcessesProcessorOptions)
    def processor(self, *arguments: Any, **values: Any) -> DeclaresProcessesProcessor: ...

    @overload
    def processor(self, handler: MessageHandlerT, /) -> MessageHandlerT: ...

    @shows(ProcessorOptions)
    def processor(self, *arguments: Any, **values: Any) -> Any:
        """Declare the handler of messages, `async def` or plain `def` (run in worker threads).

        What it returns becomes the message's data; None leaves the data as it is. Without options:
        `@pipeline.processor`.
        """
        path = f"{self.declaration.path} > processor"
        handler, arguments = bare_handler(arguments, values)
        options = make(ProcessorOptions, arguments, values, path)

        def declare(function: MessageHandlerT) -> MessageHandlerT:
            other = self.declaration.processor
            if other is not None:
                raise DuplicateName(
                    f"{path}: a pipeline has one processor, and {other.signature.name} is declared "
                    "already"
                )
            wraps = Slice if options.slices else Message
            signature = inspect_handler(function, wraps, path)
            decoder(signature.payload, handler=f"{path}: {signature.name}")
            _check_processes(function, options, signature, path)
            self._declare(processor=Declared(function, signature, options))
            return function

        return declare if handler is None else declare(handler)

    @overload
    @takes(LocalBatcherOptions)
    def batcher(self, *arguments: Any, **values: Any) -> DeclaresBatcher: ...

    @overload
    @takes(ProcessesBatcherOptions)
    def batcher(self, *arguments: Any, **values: Any) -> DeclaresProcessesBatcher: ...

    @overload
    def batcher(self, handler: BatchHandlerT, /) -> BatchHandlerT: ...

    @shows(BatcherOptions)
    def batcher(self, *arguments: Any, **values: Any) -> Any:
        """Declare a handler of batches, `async def` or plain `def`. Without options:
        `@pipeline.batcher`.

        A batch is closed at `size` messages, before `max_bytes` are exceeded, or `batch_timeout`
        seconds after its first message. `size` may also be (accumulator, function), where
        `function(message, accumulator)` returns (is the batch full, next accumulator).
        """
        handler, arguments = bare_handler(arguments, values)
        named = arguments[0] if arguments else values.get("name", "default")
        path = f"{self.declaration.path} > batcher {shown(named)}"
        options = make(BatcherOptions, arguments, values, path)
        check_size(options, self.options, path)

        def declare(function: BatchHandlerT) -> BatchHandlerT:
            signature = inspect_handler(function, Batch, path)
            _check_processes(function, options, signature, path)
            self._add_batcher(Declared(function, signature, options), path)
            return function

        return declare if handler is None else declare(handler)

    @takes(SinkArguments)
    def sink(self, *arguments: Any, **values: Any) -> None:
        """Declare a batcher whose batches are written by a sink."""
        named = arguments[0] if arguments else values.get("name")
        path = f"{self.declaration.path} > sink {shown(named)}"
        declared = make(SinkArguments, arguments, values, path)
        if (rolling := declared.sink.rolling) is not None:
            declared = make(SinkArguments, arguments, {**rolling.defaults, **values}, path)
        batching: BatchOptions = part(BatchOptions, declared)
        options = BatcherOptions(name=declared.name, **vars(batching))
        check_size(options, self.options, path)
        kind = type_name(declared.sink)
        signature = Signature(name=kind, is_async=True, payload=Any, resource=None)
        self._add_batcher(Declared(_unused, signature, options, declared.sink), path)

    def _add_batcher(self, declared: Declared, path: str) -> None:
        name = declared.options.name
        batchers = self.declaration.batchers
        if name in batchers:
            raise DuplicateName(f"{path}: there are two batchers named {name!r}")
        self._declare(batchers=MappingProxyType({**batchers, name: declared}))

    def prepare(self, handler: PrepareHookT) -> PrepareHookT:
        """Declare a function that is called with a slice (`list[Message]`) before the processor."""
        self._declare_once("prepare", handler, list)
        return handler

    def on_failed(self, handler: FailureHookT) -> FailureHookT:
        """Declare a function that is called with each Failure, and may return another policy."""
        self._declare_once("on_failed", handler, Failure)
        return handler

    def _declare_once(self, what: str, handler: Handler, wraps: type) -> None:
        path = f"{self.declaration.path} > {what}"
        if getattr(self.declaration, what) is not None:
            raise DuplicateName(f"{path}: it is declared twice")
        signature = inspect_handler(handler, wraps, path)
        self._declare(**{what: Declared(handler, signature)})

    def check(self) -> None:
        """Raise ConfigurationError for mistakes that only the whole declaration shows."""
        with interrupt_alone():
            self.declaration.check()

    def advice(self) -> list[Advice]:
        """Options that work, but do not fit each other; `start` logs them.

        Raises ConfigurationError if `check` does.
        """
        self.check()
        return advice_for(self.declaration)

    @takes(PipelineOptions)
    def configure(self, *arguments: Any, **values: Any) -> None:
        """Change options of the declaration before a run, as a deployment's configuration does.

        Raises ConfigurationError as the declaration itself would.
        """
        values = vars(self.options) | values
        changed = make(PipelineOptions, arguments, values, self.declaration.path)
        for name, declared in self.declaration.batchers.items():
            check_size(declared.options, changed, f"{self.declaration.path} > batcher {name!r}")
        self._declare(options=changed)

    # -- running

    def start(
        self,
        *,
        url: str | Sequence[str] | None = None,
        environment: Any = None,
        telemetry: Telemetry | None = None,
        tune_gc: bool = False,
        discard: Iterable[str | tuple[str, int]] = (),
        hooks: RunHooks | None = None,
    ) -> AbstractAsyncContextManager[RunningPipeline]:
        """Start the pipeline: `async with pipeline.start(url=...) as running:`.

        The body runs beside the pipeline. At its end the pipeline is stopped and drained. An error
        of the pipeline that `running.wait` did not report is raised. `url` is the
        broker's address, or several of one cluster; `environment` is one that is open, and stays
        open. Without either it is FLOWSTREAM_URL or localhost.

        `discard` names messages to settle as discarded when they come, without handling or
        decoding them: "STREAM@OFFSET", or (stream, offset) as `Halted.messages` has them.
        `hooks` are called with what happens to messages; they are for test helpers.
        """
        if url is not None and environment is not None:
            raise ConfigurationError(
                "url= and environment= exclude each other: the environment has an address already"
            )
        TELEMETRY.check("telemetry", telemetry)
        FLAG.check("tune_gc", tune_gc)
        if imports_main():
            raise ConfigurationError(
                f"{self.declaration.path} is started while a worker process of processes=True "
                'imports the program; write `if __name__ == "__main__":` before what starts it'
            )
        self.check()
        return self._start(
            url=url, environment=environment, telemetry=telemetry, tune_gc=tune_gc,
            discard=discard,
            hooks=hooks,
        )  # fmt: skip

    async def run(
        self,
        *,
        url: str | Sequence[str] | None = None,
        environment: Any = None,
        telemetry: Telemetry | None = None,
        tune_gc: bool = False,
        discard: Iterable[str | tuple[str, int]] = (),
    ) -> RunResult:
        """Run until a finite source ends, the pipeline is stopped, or it fails.

        `discard` is as in `start`. Raises the error that made it fail: Halted, DrainTimeout,
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
    if options.processes and getattr(options, "slices", False):
        raise ConfigurationError(
            f"{path} > processes=True: worker processes take single messages; leave slices=True out"
        )
    if options.processes and signature.is_async:
        raise ConfigurationError(f"{path} > processes=True: {signature.name} must be a plain def")
    if options.processes and signature.resource is not None:
        raise ConfigurationError(f"{path} > processes=True: resources cannot go to other processes")
    if options.processes:
        check_importable(handler, path)
