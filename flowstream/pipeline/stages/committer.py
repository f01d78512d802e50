"""The committer: stores what the watermarks allow, by count and interval, verified at the end."""

from __future__ import annotations

import logging
from typing import Any

import anyio

from flowstream.errors import CommitNotVerified, ConnectionFailed, EnvironmentClosed
from flowstream.pipeline import story
from flowstream.pipeline.core import Core, log
from flowstream.pipeline.handlers import passes
from flowstream.pipeline.policies import Backoff
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.repeats import Repeats, more
from flowstream.pipeline.stages.acknowledger import Settlement
from flowstream.pipeline.stages.offset_watch import OffsetWatch
from flowstream.telemetry import CommitFailed, Committed
from flowstream.texts import describe, is_a, type_name

SUMMARY = 300.0
"""Seconds between two records of what is committed."""
BACKOFF = Backoff()
LAST_TRIES = 6
"""Commits at the end of a drain before one that fails is given up, with `BACKOFF` between: 3 s."""


class Committer:
    """Commits through the producer. A commit that fails is tried again at the next interval."""

    def __init__(
        self, core: Core, settlement: Settlement, producer: Producer, watch: OffsetWatch
    ) -> None:
        self.core = core
        self.watch = watch
        self.settlement = settlement
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
        core, settlement = self.core, self.settlement
        schedule = settlement.schedule
        while True:
            if schedule.due(core.clock()):
                await self.commit()
            if schedule.waiting and not settlement.armed:
                settlement.armed = True
                core.at(max(schedule.deadline, core.clock()), self._ring)
            await settlement.due.wait()

    async def commit(self) -> None:
        """Store every watermark that advanced; one at a time, so that no offset goes back."""
        async with self._turn:
            await self._commit()

    async def _commit(self) -> None:
        since, self.settlement.uncommitted_since = self.settlement.uncommitted_since, None
        self.settlement.schedule.committed(self.core.clock())
        stored: dict[str, int] = {}
        failed: dict[str, int] = {}
        why, away = "", False
        for stream, ledger in list(self.settlement.ledgers.items()):
            offset = ledger.due()
            if offset is None:
                continue
            await self.watch.glance(stream, ledger)
            if ledger.fenced:
                continue
            ledger.storing(offset)
            try:
                await self.core.watched(
                    f"{type_name(self.producer)}.commit", self.producer.commit(stream, offset)
                )
            except BaseException as error:
                if passes(error):
                    raise
                self._hopeless = is_a(error, EnvironmentClosed)
                why, away = describe(error), is_a(error, ConnectionFailed)
                self._failed[stream] = f"{stream}@{offset} could not be stored: {why}"
                self.core.failures.broke("committer", "commit", error, stream=stream, offset=offset)
                failed[stream] = offset
                self.core.emit(CommitFailed(self.core.name, stream, offset, why))
                self.settlement.schedule.settled(1)
                self.settlement.uncommitted_since = since
                continue
            self._failed.pop(stream, None)
            ledger.store(offset)
            self.stored[stream] = stored[stream] = offset
            self.core.emit(Committed(self.core.name, stream, offset, False))
        if failed:
            self._say_failed(failed, why, away=away)
        elif stored:
            self._say_stored(stored)

    def _say_failed(self, failed: dict[str, int], why: str, *, away: bool) -> None:
        """One record for however many streams and tries; failures.py says once a minute how many.

        `away`: nothing answers. Whoever is connected says so, so that this is no warning.
        """
        core = self.core
        if self._failing_since is not None:
            return
        self._failing_since = core.clock()
        self._level = logging.INFO if away else logging.WARNING
        stream, offset = next(iter(failed.items()))
        log.log(
            self._level,
            "pipeline %r: commit of %s failed: %s (it is tried again every %g s; what is not "
            "committed is handled again by the next run)", core.name, story.places(failed), why,
            core.options.commit_interval,
            extra={"pipeline": core.name, "stream": stream, "offset": offset},
        )  # fmt: skip

    def _say_stored(self, stored: dict[str, int]) -> None:
        """Once in a while what is committed; and when it works again."""
        core, now = self.core, self.core.clock()
        left_out = self._commits.due("stored", now)
        if self._failing_since is not None and not self._failed:
            log.log(
                self._level, "pipeline %r commits again, after %.1f s: %s", core.name,
                now - self._failing_since, story.places(stored), extra={"pipeline": core.name},
            )  # fmt: skip
            self._failing_since = None
        elif left_out is not None:
            log.info(
                "pipeline %r committed %s, %s messages are settled%s", core.name,
                story.places(stored), f"{sum(core.counts.values()):,}", more(left_out),
                extra={"pipeline": core.name, "settled": sum(core.counts.values())},
            )  # fmt: skip

    async def verify(self, stream: str | None = None) -> dict[str, int]:
        """Read back what was committed, of one stream or all; what failed is first tried again.

        Returns the offsets that are stored for sure, by stream. Where this run committed nothing,
        the stored offset is left alone. Raises CommitNotVerified.
        """
        ledgers = {
            name: ledger
            for name, ledger in self.settlement.ledgers.items()
            if stream in (None, name)
        }
        for attempt in range(1, LAST_TRIES):
            if self._hopeless or not self._failed.keys() & ledgers:
                break
            await anyio.sleep(BACKOFF.delay(attempt))
            await self.commit()
        verified: dict[str, int] = {}
        for name, ledger in ledgers.items():
            if name in self._failed:
                raise CommitNotVerified(f"{self.core.name}: {self._failed[name]}")
            if ledger.advanced and ledger.committed is not None:
                await self.producer.verify(name, ledger.committed)
                verified[name] = ledger.committed
                self.core.emit(Committed(self.core.name, name, ledger.committed, True))
        return verified

    def committed(self) -> dict[str, Any]:
        """The offset last stored for each stream; None where nothing was."""
        ledgers = self.settlement.ledgers
        return {**self.stored, **{stream: ledger.committed for stream, ledger in ledgers.items()}}

    def _ring(self) -> None:
        self.settlement.armed = False
        self.settlement.due.notify()
