"""The committer: stores the watermarks, by count and interval, and verifies them at the end."""

from __future__ import annotations

import logging
from typing import Any

import anyio

from flowstream.backoff import Backoff
from flowstream.errors import CommitNotVerified, ConnectionFailed, EnvironmentClosed
from flowstream.pipeline.deciders.repeats import Repeats, more
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.offset_watch import OffsetWatch
from flowstream.pipeline.state import story
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.telemetry import CommitFailed, Committed
from flowstream.texts import describe, is_a, type_name

SUMMARY = 300.0
"""Seconds between two log records about commits."""
BACKOFF = Backoff()
LAST_TRIES = 6
"""How often the last commit of a drain is tried, with `BACKOFF` in between: about 3 s in all."""


class Committer:
    """Commits through the producer. A commit that fails is tried again at the next interval."""

    def __init__(
        self, state: RunState, ack_tracker: AckTracker, producer: Producer, watch: OffsetWatch
    ) -> None:
        self.state = state
        self.watch = watch
        self.ack_tracker = ack_tracker
        self.producer = producer
        self.stored: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._failing_since: float | None = None
        self._level = logging.WARNING
        self._commits = Repeats(SUMMARY)
        self._hopeless = False
        self._turn = anyio.Lock()

    async def run(self) -> None:
        """Commit when it is due, until cancelled."""
        state, ack_tracker = self.state, self.ack_tracker
        schedule = ack_tracker.schedule
        while True:
            if schedule.due(state.clock()):
                await self.commit()
                await anyio.sleep(schedule.pause)
                continue
            if schedule.waiting and not ack_tracker.armed:
                ack_tracker.armed = True
                state.timers.at(max(schedule.deadline, state.clock()), self._ring)
            await ack_tracker.due.wait()

    async def commit(self) -> None:
        """Store each watermark that has advanced; under a lock, so that no offset goes back."""
        async with self._turn:
            if not self._crashed:
                await self._commit()

    @property
    def _crashed(self) -> bool:
        return self.state.hooks is not None and self.state.hooks.crashed

    async def _commit(self) -> None:
        since, self.ack_tracker.uncommitted_since = self.ack_tracker.uncommitted_since, None
        self.ack_tracker.schedule.committed(self.state.clock())
        stored: dict[str, int] = {}
        failed: dict[str, int] = {}
        why, away = "", False
        for stream, tracker in list(self.ack_tracker.trackers.items()):
            offset = tracker.due()
            if offset is None:
                self._failed.pop(stream, None)  # of an earlier owner: nothing is left to store
                continue
            await self.watch.glance(stream, tracker)
            if tracker.fenced:
                continue
            tracker.storing(offset)
            try:
                await self.state.watched(
                    f"{type_name(self.producer)}.commit", self.producer.commit(stream, offset)
                )
            except BaseException as error:
                if passes(error):
                    raise
                self._hopeless = is_a(error, EnvironmentClosed)
                why, away = describe(error), is_a(error, ConnectionFailed)
                self._failed[stream] = f"{stream}@{offset} could not be stored: {why}"
                self.state.failures.broke(
                    "committer", "commit", error, stream=stream, offset=offset
                )
                failed[stream] = offset
                self.state.emit(CommitFailed(self.state.name, stream, offset, why))
                self.ack_tracker.schedule.failed()
                self.ack_tracker.uncommitted_since = since
                continue
            self._failed.pop(stream, None)
            tracker.store(offset)
            if self.state.hooks is not None:
                self.state.hooks.committed(stream, offset)
            self.stored[stream] = stored[stream] = offset
            self.state.emit(Committed(self.state.name, stream, offset, False))
        if failed:
            self._log_failed(failed, why, away=away)
        elif stored:
            self._log_stored(stored)

    def _log_failed(self, failed: dict[str, int], why: str, *, away: bool) -> None:
        """Log once, for all streams and attempts; failure_log.py counts them once a minute.

        `away`: the broker does not answer. The client warns of that, so this is no warning.
        """
        state = self.state
        if self._failing_since is not None:
            return
        self._failing_since = state.clock()
        self._level = logging.INFO if away else logging.WARNING
        stream, offset = next(iter(failed.items()))
        log.log(
            self._level,
            "pipeline %r: commit of %s failed: %s (it is tried again every %g s; the next run "
            "handles again what is not committed)", state.name, story.places(failed), why,
            state.options.commit_interval,
            extra={"pipeline": state.name, "stream": stream, "offset": offset},
        )  # fmt: skip

    def _log_stored(self, stored: dict[str, int]) -> None:
        """Log what is committed from time to time, and when commits succeed again."""
        state, now = self.state, self.state.clock()
        left_out = self._commits.due("stored", now)
        if self._failing_since is not None and not self._failed:
            log.log(
                self._level, "pipeline %r commits again, after %.1f s: %s", state.name,
                now - self._failing_since, story.places(stored), extra={"pipeline": state.name},
            )  # fmt: skip
            self._failing_since = None
        elif left_out is not None:
            log.info(
                "pipeline %r committed %s, %s messages are settled%s", state.name,
                story.places(stored), f"{sum(state.counts.values()):,}", more(left_out),
                extra={"pipeline": state.name, "settled": sum(state.counts.values())},
            )  # fmt: skip

    async def commit_now(self, stream: str) -> None:
        """Commit, and verify the offset of the stream."""
        await self.commit()
        await self.verify(stream)

    async def verify(self, stream: str | None = None) -> dict[str, int]:
        """Read back the committed offsets of one stream or all, after retrying failed commits.

        Returns the offsets that are certainly stored, by stream. Streams for which this run has
        committed nothing are left alone. Raises CommitNotVerified.
        """
        trackers = {
            name: tracker
            for name, tracker in self.ack_tracker.trackers.items()
            if stream in (None, name)
        }
        if self._crashed:
            return {}
        for attempt in range(1, LAST_TRIES):
            if self._hopeless or not self._failed.keys() & trackers:
                break
            await anyio.sleep(BACKOFF.delay(attempt))
            await self.commit()
        verified: dict[str, int] = {}
        for name, tracker in trackers.items():
            if name in self._failed:
                raise CommitNotVerified(f"{self.state.name}: {self._failed[name]}")
            async with self._turn:  # a partition is not handed over meanwhile
                if tracker.fenced or not tracker.advanced or tracker.committed is None:
                    continue
                await self.producer.verify(name, tracker.committed)
                verified[name] = tracker.committed
                self.state.emit(Committed(self.state.name, name, tracker.committed, True))
        return verified

    def committed(self) -> dict[str, Any]:
        """The offset last stored for each stream; None if there is none."""
        trackers = self.ack_tracker.trackers
        return {
            **self.stored,
            **{stream: tracker.committed for stream, tracker in trackers.items()},
        }

    def _ring(self) -> None:
        self.ack_tracker.armed = False
        self.ack_tracker.due.notify()
