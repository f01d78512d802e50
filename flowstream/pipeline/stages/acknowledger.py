"""The acknowledger: settles every message exactly once, and frees its room in the window.

`settle` gives messages their final outcome; `abandon` leaves them to the next run, so the watermark
stays before them. A slice without special messages is settled as ranges.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from flowstream.pipeline.deciders.commit_schedule import CommitSchedule
from flowstream.pipeline.delivery import Delivery, OffsetTracker
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.producer import Acknowledger
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.state.run_state import RunState
from flowstream.signals import Signal
from flowstream.telemetry import Abandoned, Dropped, Settled
from flowstream.texts import describe, type_name

_WORST = ("ok", "dropped", "discarded", "dead_lettered", "halted")


class Ordered(Protocol):
    """A stage that holds messages until all before them are settled (deciders/source_order.py)."""

    @property
    def held(self) -> int:
        """How many messages wait."""

    def proceed(self) -> None:
        """Messages were settled or abandoned: pass on the messages that waited for them."""

    def hurry(self) -> None:
        """Messages elsewhere wait for those here: do not wait for more."""


class AckTracker:
    """Settles messages, and wakes the committer when offsets are due."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.trackers: dict[str, OffsetTracker] = {}
        self.schedule: Final = CommitSchedule(
            state.options.commit_every, state.options.commit_interval, state.clock()
        )
        self.early: deque[Message[Any]] = deque()
        self.orders: list[Ordered] = []
        self.acknowledgers = 0
        self.abandoned: int = 0
        self.due: Final = Signal()
        self.armed = False
        self.uncommitted_since: float | None = None

    def settled_offsets(self) -> dict[str, range]:
        """The offsets that the run has settled without a gap, by stream."""
        return {stream: tracker.settled for stream, tracker in self.trackers.items()}

    async def settle(self, part: Slice[Any], outcome: str) -> None:
        """Settle messages. If their source has an acknowledger, it is called first."""
        if self.early:
            await self.settle_early()
        if self.acknowledgers:
            part = Slice.of(await self._acknowledge(part.messages, outcome))
        if part.touched or outcome == "dropped":
            self._settle_each(part.messages, outcome)
        else:
            self._settle_runs(part, outcome)
        self._wake()

    def abandon(self, messages: Sequence[Message[Any]]) -> None:
        """Leave messages to the next run, which gets them again."""
        abandoned: Counter[str] = Counter()
        for message in messages:
            origin = self._joined(message, "halted")
            if origin is None:
                continue
            if self._abandon(origin):
                abandoned[origin.stream] += 1
                if self.orders:  # nothing behind it may be published before it
                    self.state.stop_at(origin)
            self.state.window.release(1, len(origin.raw))
        for stream, count in abandoned.items():
            self.state.emit(Abandoned(self.state.name, stream, count))
        self._wake()

    def _abandon(self, message: Message[Any]) -> bool:
        """Abandon a message. False if it was settled already."""
        done = message._delivery.abandon(message._index)
        self.abandoned += done
        return done

    def report_early(self, message: Message[Any]) -> None:
        """`message.settle()` was called, perhaps in a worker thread."""
        self.early.append(message)

    def skipped(self) -> None:
        """A watermark passed offsets that will not be delivered."""
        if self.schedule.settled(1) or not self.armed:
            self.due.notify()

    # -- settling

    def _settle_runs(self, part: Slice[Any], outcome: str) -> None:
        """Settle messages of which none is special, a range at a time."""
        for delivery, indexes in part.runs:
            delivery.settle(indexes)
            self._settled(delivery, outcome, len(indexes))
        if self.state.hooks is not None:
            self.state.hooks.settled(part.messages, outcome)
        if count := len(part):
            self.state.window.release(count, part.size)
            self._counted(outcome, count)

    def _settle_each(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        """Settle messages of which some went to several batchers, or were settled in a handler."""
        plain: list[Message[Any]] = []
        special: list[Message[Any]] = []
        for message in messages:
            extra = message._extra
            (special if extra is not None and (extra.joint or extra.early) else plain).append(
                message
            )
        self._settle_runs(Slice.of(plain), outcome)
        if outcome == "dropped" and self.state.telemetry.active:
            self._report_dropped(plain)
        everywhere_ok: list[Message[Any]] = []
        for message in special:
            origin = self._joined(message, outcome)
            if origin is None:
                continue
            joint = message._more().joint
            settled = origin._delivery.flags[origin._index]
            if joint is not None and joint.outcome == "ok" and not settled:
                everywhere_ok.append(origin)
            else:
                self._settle_special(message, origin, outcome)
        if everywhere_ok:
            self._settle_runs(Slice.of(everywhere_ok), "ok")

    def _settle_special(self, message: Message[Any], origin: Message[Any], outcome: str) -> None:
        extra, reason = message._extra, message.dropped
        if extra is not None and extra.joint is not None:
            outcome, reason = extra.joint.outcome, extra.joint.dropped
        if outcome == "halted":
            self.abandon([origin])
            return
        if not origin._delivery.flags[origin._index]:
            self._settle_one(origin, outcome)
            if outcome == "dropped":
                self.state.emit(Dropped(self.state.name, origin.stream, reason or "", 1, True))
        self.state.window.release(1, len(origin.raw))

    def _settle_one(self, message: Message[Any], outcome: str) -> None:
        message._delivery.settle([message._index])
        if self.state.hooks is not None:
            self.state.hooks.settled([message], outcome)
        self._settled(message._delivery, outcome, 1)
        self._counted(outcome, 1)

    def _joined(self, message: Message[Any], outcome: str) -> Message[Any] | None:
        """The message to settle; None while clones of it are still in other batchers."""
        joint = None if message._extra is None else message._extra.joint
        if joint is None:
            return message
        if outcome != joint.outcome:
            joint.outcome = max(joint.outcome, outcome, key=_WORST.index)
            joint.dropped = joint.dropped or message.dropped
        joint.pending -= 1
        return None if joint.pending else joint.origin

    def _settled(self, delivery: Delivery, outcome: str, count: int) -> None:
        if self.state.telemetry.active:
            state, published = self.state, delivery.timestamp
            # The broker's clock may be ahead of this one, and a sum of latencies must not fall.
            latency = max(time.time() - published / 1000, 0.0) if published else None
            state.telemetry.emit(
                Settled(state.name, delivery.partition.stream, outcome, count, latency)
            )

    def _counted(self, outcome: str, count: int) -> None:
        state = self.state
        state.counts[outcome] = state.counts.get(outcome, 0) + count
        state.progress = now = state.clock()
        if self.uncommitted_since is None:
            self.uncommitted_since = now
        if self.schedule.settled(count) or not self.armed:
            self.due.notify()

    def _report_dropped(self, messages: Iterable[Message[Any]]) -> None:
        reasons = Counter((message.stream, message.dropped or "") for message in messages)
        for (stream, reason), count in reasons.items():
            self.state.emit(Dropped(self.state.name, stream, reason, count, True))

    def _wake(self) -> None:
        for each in self.orders:
            each.proceed()
        self.state.freed.notify()
        self.state.changed.notify()

    # -- messages settled by handlers, and sources with an acknowledger

    async def settle_early(self) -> None:
        """Settle the messages for which handlers called `message.settle()`."""
        while self.early:
            message = self.early.popleft()
            if message._delivery.flags[message._index]:
                continue
            acknowledger = message._delivery.partition.acknowledger
            if acknowledger is not None and not await self._report(acknowledger, [message], "ok"):
                self._abandon(message)
                continue
            self._settle_one(message, "ok")

    async def _acknowledge(
        self, messages: Sequence[Message[Any]], outcome: str
    ) -> list[Message[Any]]:
        """Call acknowledgers. Returns the messages that may be settled."""
        groups: dict[tuple[int, str], tuple[Acknowledger, list[Message[Any]]]] = {}
        settle: list[Message[Any]] = []
        for message in messages:
            extra = message._extra
            acknowledger = message._delivery.partition.acknowledger
            joint = None if extra is None else extra.joint
            final = outcome
            if joint is not None:
                final = max(joint.outcome, outcome, key=_WORST.index)
            last = (joint is None or joint.pending == 1) and final != "halted"
            reported = message._delivery.flags[message._index]
            if acknowledger is None or not last or reported:
                settle.append(message)
            else:
                key = id(acknowledger), final
                groups.setdefault(key, (acknowledger, []))[1].append(message)
        for (_, final), (acknowledger, group) in groups.items():
            if await self._report(acknowledger, group, final):
                settle.extend(group)
            else:
                self.abandon(group)
        return settle

    async def _report(
        self, acknowledger: Acknowledger, messages: list[Message[Any]], outcome: str
    ) -> bool:
        try:
            await self.state.watched(
                f"{type_name(acknowledger)}.acknowledge",
                acknowledger.acknowledge(list(messages), outcome),
            )
        except BaseException as error:
            if passes(error):
                raise
            reason = f"the acknowledger raised {describe(error)}"
            failure = Failure(messages[0], reason, error=error)
            failure.phase, failure.stage = "commit", type_name(acknowledger)
            self.state.halt(failure)
            return False
        return True
