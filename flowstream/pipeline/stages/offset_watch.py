"""Detects that something else stores offsets for the streams of a run, such as a second run.

Stored offsets have no owner: the last one stored decides where the next run begins. So the stored
offset is read regularly, and before this run overwrites it, and compared with what this run stored.
"""

from __future__ import annotations

import anyio

from flowstream.pipeline.deciders.repeats import Repeats
from flowstream.pipeline.delivery import OffsetTracker
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.telemetry import OffsetMoved
from flowstream.texts import describe, type_name

LOOK = 5.0
"""Seconds between two checks."""
MOST = 50
"""How many streams are checked at a time; if there are more, they take turns."""
GLANCE = 1.0
"""Seconds that a check before a commit may take, and for which it is not repeated."""


class OffsetWatch:
    """Checks the stored offsets of the streams of a run, and warns if something else moved one."""

    def __init__(self, state: RunState, ack_tracker: AckTracker, producer: Producer) -> None:
        self.state = state
        self.ack_tracker = ack_tracker
        self.producer = producer
        self._turn = 0
        self._looked: dict[str, float] = {}
        self._warnings = Repeats()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await anyio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Check all streams, or those whose turn it is."""
        for stream, tracker in self._some():
            await self._look(stream, tracker)

    async def glance(self, stream: str, tracker: OffsetTracker) -> None:
        """Check a stream before its offset is overwritten, within GLANCE seconds."""
        if self.state.clock() >= self._looked.get(stream, -GLANCE) + GLANCE:
            with anyio.move_on_after(GLANCE):
                await self._look(stream, tracker)

    async def _look(self, stream: str, tracker: OffsetTracker) -> None:
        """Check once. An offset that cannot be read does not end the run: it is read again."""
        self._looked[stream] = self.state.clock()
        try:
            found, shared = await self.state.watched(
                f"{type_name(self.producer)}.stored_offset", self._ask(stream)
            )
        except BaseException as error:
            if passes(error):
                raise
            log.debug(
                "%s: the stored offset of %s is not known: %s", self.state.name, stream,
                describe(error), extra={"pipeline": self.state.name, "stream": stream},
            )  # fmt: skip
            return
        held = self.ack_tracker.trackers.get(stream) is tracker and not tracker.fenced
        if held and found is not None and (shared or not tracker.is_own(found)):
            self._moved(stream, tracker, found, "another run" if shared else "something else")

    async def _ask(self, stream: str) -> tuple[int | None, bool]:
        """The stored offset, and whether another run claimed the reference. A claim is seen only
        once, so it is not read while there is no offset to report with it."""
        found = await self.producer.stored_offset(stream)
        return found, found is not None and await self.producer.is_shared(stream)

    def _some(self) -> list[tuple[str, OffsetTracker]]:
        trackers = list(self.ack_tracker.trackers.items())
        if len(trackers) <= MOST:
            return trackers
        start = self._turn = (self._turn + MOST) % len(trackers)
        return (trackers + trackers)[start : start + MOST]

    def _moved(self, stream: str, tracker: OffsetTracker, found: int, who: str) -> None:
        state, expected = self.state, tracker.committed
        reference = self.producer.describe().get("reference") or state.name
        state.emit(OffsetMoved(state.name, stream, reference, expected, found))
        if self._warnings.due(stream, state.clock()) is None:
            return
        which = "stored" if tracker.advanced else "found"
        log.warning(
            "pipeline %r: %s stores offsets of %r under the reference %r: this run %s %s, and now "
            "%d is stored. If the pipeline runs a second time, messages are handled twice: stop "
            "one of the runs, give one of them another reference=, or share a super stream with "
            "single_active=True. If the offset was set by hand, stop the run before you set it: "
            "its next commit overwrites it",
            state.name, who, stream, reference, which, _shown(expected), found,
            extra={"pipeline": state.name, "stream": stream, "reference": reference,
                   "expected": expected, "offset": found},
        )  # fmt: skip


def _shown(offset: int | None) -> str:
    return "none" if offset is None else str(offset)
