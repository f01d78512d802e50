"""The batcher of an ordered sink: its messages go on in the order of the source.

A message waits here until all before it are decided (deciders/source_order.py). It waits before it
is in a batch and not in the sink, because a worker that waits cannot write what it waits for.
"""

from __future__ import annotations

from typing import Any, Final

from flowstream.errors import WrittenOutOfOrder
from flowstream.pipeline.deciders.source_order import SourceOrder
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.batch_processor import BatchProcessors
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState


class OrderedBatcher(Batcher):
    """One batcher, whose batches are in the order of the source."""

    def __init__(
        self,
        state: RunState,
        options: BatcherOptions,
        failure_handler: FailureHandler,
        processors: BatchProcessors,
        ack_tracker: AckTracker,
    ) -> None:
        super().__init__(
            state, options, failure_handler, processors,
            partition_by=None, in_order=False, keyed=False,
        )  # fmt: skip
        self.order: Final = SourceOrder()
        self._ack_tracker = ack_tracker
        ack_tracker.orders.append(self)

    @property
    def held(self) -> int:
        return self.order.held

    @property
    def waits_for(self) -> list[tuple[str, int]]:
        return self.order.waits_for

    @property
    def waiting(self) -> int:
        return super().waiting + self.held

    @property
    def idle(self) -> bool:
        return not self.held and super().idle

    def put(self, part: Slice[Any], *, decided: bool = False) -> None:
        """Add messages, and pass on those that are next."""
        released, late = self.order.put(part)
        if released is not None:
            self._pass_on(released)
        if late:
            self.failure_handler.put([self.processors.stamp(_late(each), 1) for each in late])
        self._look()

    def proceed(self) -> None:
        """Messages were settled or abandoned: pass on the messages that waited for them."""
        released = self.order.settled()
        if released is not None:
            self._pass_on(released)
        self._look()

    def _pass_on(self, part: Slice[Any]) -> None:
        flush = any(m._extra is not None and m._extra.flush for m in part.flagged)
        super().put(part, decided=flush)

    def _look(self) -> None:
        """Leave what is held behind a halt to the next run; hurry what others wait for."""
        others = [each for each in self._ack_tracker.orders if each is not self]
        if self.held:
            if self.state.halts and (behind := self.order.withdraw(self.state.split_at_halt)):
                self._ack_tracker.abandon(behind)
            for other in others:
                other.hurry()
        if any(other.held for other in others):
            self.hurry()

    def hurry(self) -> None:
        """Messages of another sink wait for those here: do not wait for more."""
        if self.batching.open:
            self.flush("order")


def _late(message: Message[Any]) -> Failure:
    error = WrittenOutOfOrder(
        f"{message.stream}@{message.offset} was settled by `message.settle()` before it came to "
        "the sink, and later messages have been written since: it can no longer be written once"
    )
    return Failure(message, str(error), error=error, retry=False)
