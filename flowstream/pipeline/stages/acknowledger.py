"""The acknowledger: settles every message exactly once, and frees its place in the window.

`settle` gives a final outcome; `hold` gives a message up for this run, so that the watermark
stays before it. Both take messages in bulk.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from flowstream.pipeline.deciders.commit_schedule import CommitSchedule
from flowstream.pipeline.delivery import HELD, SETTLED, OffsetTracker
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.producer import Acknowledger
from flowstream.pipeline.state.run_state import RunState, Signal
from flowstream.telemetry import Abandoned, Dropped, Settled
from flowstream.texts import describe, type_name

_WORST = ("ok", "dropped", "discarded", "dead_lettered", "halted")


class AckTracker:
    """Settles messages, and tells when their offsets should be committed."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.trackers: dict[str, OffsetTracker] = {}
        self.schedule = CommitSchedule(
            state.options.commit_every, state.options.commit_interval, state.clock()
        )
        self.early: deque[Message[Any]] = deque()
        self.acknowledgers = 0
        self.held = 0
        self.due = Signal()
        self.armed = False
        self.uncommitted_since: float | None = None

    async def settle(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        """Settle messages. Where their source has an acknowledger, it is told first."""
        if self.early:
            await self.settle_early()
        if self.acknowledgers:
            messages = await self._acknowledge(messages, outcome)
        self._settle(messages, outcome)

    def hold(self, messages: Sequence[Message[Any]]) -> None:
        """Give messages up for this run: they stay unsettled, and the next one replays them."""
        held: Counter[str] = Counter()
        for message in messages:
            origin = self._joined(message, "halted")
            if origin is None:
                continue
            if self._hold(origin._delivery, origin._index):
                held[origin._delivery.partition.stream] += 1
            self.state.window.release(1, len(origin.raw))
        for stream, count in held.items():
            self.state.emit(Abandoned(self.state.name, stream, count))
        self._wake()

    def _hold(self, delivery: Any, index: int) -> bool:
        """Whether it was still to be settled."""
        if delivery.flags[index]:
            return False
        delivery.flags[index] = HELD
        delivery.held += 1
        delivery.remaining -= 1
        self.held += 1
        return True

    def tell_early(self, message: Message[Any]) -> None:
        """`message.settle()` was called, perhaps in a worker thread."""
        self.early.append(message)

    def skipped(self) -> None:
        """A watermark moved without a message: offsets that will not be delivered were passed."""
        if self.schedule.settled(1) or not self.armed:
            self.due.notify()

    def _settle(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        count = size = run = 0
        flagged: list[Message[Any]] = []
        delivery: Any = None
        flags = bytearray()
        for message in messages:
            if message._extra is not None and (message._extra.joint or message._extra.early):
                flagged.append(message)
                continue
            if message._delivery is not delivery:
                if run:
                    self._count(delivery, outcome, run)
                delivery = message._delivery
                flags = delivery.flags
                run = 0
            index = message._index
            if flags[index]:
                raise AssertionError(f"{message.stream}@{message.offset} was settled twice")
            flags[index] = SETTLED
            run += 1
            size += len(message.raw)
            count += 1
        if run:
            self._count(delivery, outcome, run)
        if count:
            self.state.window.release(count, size)
            self._counted(outcome, count)
            if outcome == "dropped" and self.state.telemetry.active:
                self._tell_dropped(messages if not flagged else set(messages).difference(flagged))
        for message in flagged:
            self._settle_rare(message, outcome)
        self._wake()

    def _settle_rare(self, message: Message[Any], outcome: str) -> None:
        origin = self._joined(message, outcome)
        if origin is None:
            return
        extra, reason = message._extra, message.dropped
        if extra is not None and extra.joint is not None:
            outcome, reason = extra.joint.outcome, extra.joint.dropped
        if outcome == "halted":
            self.hold([origin])
            return
        if not origin._delivery.flags[origin._index]:
            origin._delivery.flags[origin._index] = SETTLED
            self._count(origin._delivery, outcome, 1)
            self._counted(outcome, 1)
            if outcome == "dropped":
                self.state.emit(Dropped(self.state.name, origin.stream, reason or "", 1, True))
        self.state.window.release(1, len(origin.raw))

    def _joined(self, message: Message[Any], outcome: str) -> Message[Any] | None:
        """The message itself, or its origin when this was the last of its branches."""
        joint = None if message._extra is None else message._extra.joint
        if joint is None:
            return message
        joint.outcome = max(joint.outcome, outcome, key=_WORST.index)
        joint.dropped = joint.dropped or message.dropped
        joint.pending -= 1
        return None if joint.pending else joint.origin

    def _count(self, delivery: Any, outcome: str, count: int) -> None:
        delivery.remaining -= count
        if self.state.telemetry.active:
            state, published = self.state, delivery.timestamp
            latency = time.time() - published / 1000 if published else None
            state.emit(Settled(state.name, delivery.partition.stream, outcome, count, latency))

    def _counted(self, outcome: str, count: int) -> None:
        state = self.state
        state.counts[outcome] = state.counts.get(outcome, 0) + count
        state.progress = now = state.clock()
        if self.uncommitted_since is None:
            self.uncommitted_since = now
        if self.schedule.settled(count) or not self.armed:
            self.due.notify()

    def _tell_dropped(self, messages: Iterable[Message[Any]]) -> None:
        reasons = Counter((message.stream, message.dropped or "") for message in messages)
        for (stream, reason), count in reasons.items():
            self.state.emit(Dropped(self.state.name, stream, reason, count, True))

    def _wake(self) -> None:
        self.state.freed.notify()
        self.state.changed.notify()

    async def settle_early(self) -> None:
        """Settle what handlers acknowledged with `message.settle()`."""
        while self.early:
            message = self.early.popleft()
            if message._delivery.flags[message._index]:
                continue
            partition = message._delivery.partition
            if partition.acknowledger is not None and not await self._tell(
                partition.acknowledger, [message], "ok"
            ):
                self._hold(message._delivery, message._index)
                continue
            message._delivery.flags[message._index] = SETTLED
            self._count(message._delivery, "ok", 1)
            self._counted("ok", 1)

    async def _acknowledge(
        self, messages: Sequence[Message[Any]], outcome: str
    ) -> Sequence[Message[Any]]:
        """Tell acknowledgers; returns the messages that may be settled."""
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
            told = message._delivery.flags[message._index]
            if acknowledger is None or not last or told:
                settle.append(message)
            else:
                key = id(acknowledger), final
                groups.setdefault(key, (acknowledger, []))[1].append(message)
        for (_, final), (acknowledger, group) in groups.items():
            if await self._tell(acknowledger, group, final):
                settle.extend(group)
            else:
                self.hold(group)
        return settle

    async def _tell(
        self, acknowledger: Acknowledger, messages: list[Message[Any]], outcome: str
    ) -> bool:
        try:
            await self.state.watched(
                f"{type_name(acknowledger)}.acknowledge",
                acknowledger.acknowledge(messages, outcome),
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
