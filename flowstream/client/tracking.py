"""Stored offsets: reading, storing, verifying, and when to do it."""

from __future__ import annotations

import anyio

from flowstream.checks import MAX_NAME
from flowstream.errors import CommitNotVerified, ConfigurationError, NoOffset
from flowstream.protocol import QueryOffset, QueryOffsetResponse, StoreOffset

from .attachment import PASSING
from .codes import check
from .core import Core
from .options import AutoTracking, check_reference

WORDS = 1 << 64

BEFORE_FIRST = -1
"""Stored to say that not even offset 0 is settled. Servers keep unsigned numbers of 64 bits and
have no command that forgets an offset, so it is stored as other clients read it: a signed -1."""

KEPT = 1 << 62
KEPT_SUFFIX = "#kept"
"""RabbitMQ forgets a stored offset once retention has passed it (osiris_tracking.erl: snapshot). A
reader that was away for long would look like one that is new: it would begin at its `offset=`, and
nobody would learn what it missed. So every offset is stored a second time, under the reference with
this suffix and KEPT higher: no stream's first offset ever gets there."""


class OffsetStore:
    """The offsets that the broker keeps under references, over a connection of their own.

    What is stored is remembered when retention has passed it, too: see `KEPT`.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def query(self, reference: str, stream: str) -> int | None:
        """The offset stored under the reference; None where there is none, -1 before the first."""
        offset = await self._read(reference, stream)
        if offset is None and (kept := kept_reference(reference)) is not None:
            offset = await self._read(kept, stream)
            return None if offset is None else offset - KEPT
        return offset

    async def _read(self, reference: str, stream: str) -> int | None:
        self._core.check()
        answer = await self._core.tracking.request(
            lambda c: QueryOffset(c, reference, stream), QueryOffsetResponse
        )
        action = f'read the offset of "{reference}" on "{stream}"'
        try:
            check(answer.code, action, stream=stream, reference=reference)
        except NoOffset:
            return None
        return answer.offset - WORDS if answer.offset >= WORDS >> 1 else answer.offset

    async def store(self, reference: str, stream: str, offset: int) -> None:
        """Sends an offset to be stored. The server never answers: it can be lost without a word."""
        self._core.check()
        check_reference("the reference of an offset", reference)
        if reference.endswith(KEPT_SUFFIX):
            raise ConfigurationError(f'a reference cannot end in "{KEPT_SUFFIX}": {reference!r}')
        if not BEFORE_FIRST <= offset < KEPT:
            raise ConfigurationError(f"offset {offset} is none: give a number from -1 on")
        connection = await self._core.tracking.get()
        await connection.drained()
        kept = kept_reference(reference)
        if kept is not None:
            connection.send(StoreOffset(kept, stream, KEPT + offset))
        connection.send(StoreOffset(reference, stream, offset % WORDS))

    async def store_verified(self, reference: str, stream: str, offset: int) -> None:
        """Stores an offset and reads it back; raises CommitNotVerified if it did not arrive.

        For `request_timeout` both are tried again, over lost connections too.
        """
        settings = self._core.settings
        deadline = anyio.current_time() + settings.request_timeout
        attempt = 0
        while True:
            found, failure = None, None
            try:
                await self.store(reference, stream, offset)
                found = await self._read(reference, stream)
            except PASSING as error:
                failure = error
            if found == offset:
                return
            attempt += 1
            delay = settings.backoff.delay(attempt)
            if anyio.current_time() + delay > deadline:
                raise CommitNotVerified(
                    f'offset {offset} of "{reference}" on "{stream}" was not stored '
                    f"({failure or f'found {found}'}); check the user's permissions and that the "
                    "stream has a leader"
                ) from failure
            await anyio.sleep(delay)


def kept_reference(reference: str) -> str | None:
    """Where the offset is stored a second time; None where that name would be too long."""
    kept = reference + KEPT_SUFFIX
    return kept if len(kept.encode()) <= MAX_NAME else None


class Tracker:
    """What was consumed and what was stored of it. Pure.

    `processed` is told of every delivery that is done with, and answers with the offset to store
    when it is time by count; `due` is asked when it is time by the clock, and at the end.
    """

    __slots__ = ("_count", "_every", "last", "stored")

    def __init__(self, tracking: AutoTracking | str) -> None:
        self._every = tracking.messages if isinstance(tracking, AutoTracking) else None
        self._count = 0
        self.last: int | None = None
        self.stored: int | None = None

    def processed(self, last_offset: int, messages: int) -> int | None:
        if self._every is None:
            return None
        self.last = last_offset
        self._count += messages
        return self.due() if self._count >= self._every else None

    def due(self) -> int | None:
        """The offset to store, if it has advanced; it counts as stored from now on."""
        self._count = 0
        if self.last is None or self.last == self.stored:
            return None
        self.stored = self.last
        return self.stored

    def unverified(self) -> int | None:
        """What must be in the store at a hand-over or at the end, stored before or not."""
        return self.last if self._every is not None else self.stored

    def forget(self) -> None:
        """A hand-over: what was consumed before is no more this consumer's to store."""
        self.last = self.stored = None
        self._count = 0
