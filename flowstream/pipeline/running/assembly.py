"""Builds the stages of one run from its declaration, beginning with the last stage.

Each stage is constructed with those that it passes messages to, so nothing is set afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowstream.pipeline.annotations import bind
from flowstream.pipeline.context import RunContext, checked_manager
from flowstream.pipeline.deciders.discards import Discards
from flowstream.pipeline.deciders.rate_limit import RateLimiter
from flowstream.pipeline.declaration import Declaration, Declared
from flowstream.pipeline.handlers.calls import thread_handler
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.payload import decoder
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.batch_processor import BatchProcessors
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.committer import Committer
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.stages.ordered_batcher import OrderedBatcher
from flowstream.pipeline.stages.processor import Downstream, Processors
from flowstream.pipeline.stages.router import End, Router
from flowstream.pipeline.stages.source import Source
from flowstream.pipeline.state.run_state import RunState


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one run. `processors` is None if the batcher is the first stage."""

    source: Source
    processors: Processors | None
    batchers: dict[str, Batcher]
    failure_handler: FailureHandler

    @property
    def pools(self) -> list[Pool]:
        """The workers of all stages, in the order of a message's path."""
        first = [] if self.processors is None else [self.processors]
        return [*first, *(batcher.processors for batcher in self.batchers.values())]

    @property
    def resizable(self) -> dict[str, Processors | Batcher]:
        """The stages whose number of workers may be changed, by name."""
        first: list[Processors | Batcher] = [] if self.processors is None else [self.processors]
        return {stage.name: stage for stage in (*first, *self.batchers.values())}


class Assembly:
    """Builds stages from a declaration and what its run has opened."""

    def __init__(
        self,
        declaration: Declaration,
        state: RunState,
        context: RunContext,
        ack_tracker: AckTracker,
        committer: Committer,
        *,
        limiter: RateLimiter,
        discards: Discards,
        resources: Any,
        reads: Sequence[str],
    ) -> None:
        self._declaration = declaration
        self._state = state
        self._context = context
        self._ack_tracker = ack_tracker
        self._committer = committer
        self._limiter = limiter
        self._discards = discards
        self._resources = resources
        self._reads = reads
        first = declaration.first
        self._decoder = decoder(first.signature.payload, handler=first.signature.name)

    async def build(self) -> Stages:
        """Build all stages, and open what the failure policy and the sinks need."""
        declaration = self._declaration
        failure_handler = FailureHandler(
            self._state, self._context, self._ack_tracker, declaration.options.on_failure,
            None if declaration.on_failed is None else self._async("on_failed",
                                                                   declaration.on_failed),
            reads=self._reads,
        )  # fmt: skip
        await failure_handler.open()
        batchers = {
            name: await self._batcher(declared, failure_handler)
            for name, declared in declaration.batchers.items()
        }
        name = "source" if declaration.processor is None else declaration.processor.options.name
        downstream: Downstream = End(self._ack_tracker, failure_handler, name)
        if batchers:
            downstream = Router(batchers, failure_handler, name)
        processors = None
        if declaration.processor is not None:
            processors = self._processors(declaration.processor, failure_handler, downstream)
        source = Source(
            self._state, self._context, ack_tracker=self._ack_tracker,
            committer=self._committer, failure_handler=failure_handler,
            entrance=processors or next(iter(batchers.values())),
            limiter=self._limiter, decoder=self._decoder, discards=self._discards,
        )  # fmt: skip
        return Stages(source, processors, batchers, failure_handler)

    def _processors(
        self, declared: Declared, failure_handler: FailureHandler, downstream: Downstream
    ) -> Processors:
        options, prepare = self._declaration.options, self._declaration.prepare
        return Processors(
            self._state, declared.options, self._ack_tracker, failure_handler, downstream,
            handler=self._bound(declared),
            is_async=declared.signature.is_async,
            prepare=None if prepare is None else self._async("prepare", prepare),
            partition_by=declared.options.partition_by or options.partition_by,
            retry=options.retry,
            decoder=self._decoder,
        )  # fmt: skip

    async def _batcher(self, declared: Declared, failure_handler: FailureHandler) -> Batcher:
        if declared.sink is None:
            handler, is_async = self._bound(declared), declared.signature.is_async
        else:
            place = f"{self._declaration.path} > sink {declared.options.name!r} > writer"
            manager = checked_manager(declared.sink.writer(self._context), place)
            handler = await self._context.enter(manager)
            is_async = True
        processors = BatchProcessors(
            self._state, declared.options, self._ack_tracker, failure_handler,
            handler=handler, is_async=is_async,
            phase="batch" if declared.sink is None else "sink",
            retry=self._declaration.options.retry,
            ordered=declared.ordered,
        )  # fmt: skip
        if declared.ordered:
            return OrderedBatcher(
                self._state, declared.options, failure_handler, processors, self._ack_tracker
            )
        of_all, processor = self._declaration.options.partition_by, self._declaration.processor
        if processor is None:
            partition_by, in_order = declared.options.partition_by or of_all, False
        else:
            partition_by = declared.options.partition_by
            in_order = (processor.options.partition_by or of_all) is not None
        return Batcher(
            self._state, declared.options, failure_handler, processors,
            partition_by=partition_by, in_order=in_order,
            rolling=None if declared.sink is None else declared.sink.rolling,
        )  # fmt: skip

    def _bound(self, declared: Declared) -> Any:
        return bind(declared.handler, declared.signature, self._resources)

    def _async(self, name: str, declared: Declared) -> Any:
        handler = self._bound(declared)
        if declared.signature.is_async:
            return handler
        return thread_handler(handler, name, self._state.threads)
