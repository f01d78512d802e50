"""Stored offsets: reading, storing, verifying, and when to do it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from flowstream.checks import MAX_NAME, check_reference
from flowstream.client.connecting.connection import raise_for_code
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.recovery import TRANSIENT
from flowstream.errors import CommitNotVerified, ConfigurationError, NoOffset, ServerError
from flowstream.protocol import QueryOffset, QueryOffsetResponse, StoreOffset

from .options import AutoTracking

WORDS = 1 << 64

BEFORE_FIRST = -1
"""Stored to say that not even offset 0 is settled. Servers keep unsigned numbers of 64 bits and
have no command that forgets an offset, so it is stored as other clients read it: a signed -1."""

KEPT = 1 << 62
KEPT_SUFFIX = "#kept"
"""RabbitMQ forgets a stored offset once retention has passed it (osiris_tracking.erl: snapshot). A
reader that was away for long would look like one that is new: it would begin at its `offset=`, and
nobody would learn what it missed. So the offsets of names that are meant to last are stored a
second time, under the reference with this suffix and KEPT higher: no stream's first offset ever
gets there. Nothing ever forgets such a reference, so it is not for readers that come and go."""

CLAIM_SUFFIX = "#kept.run"
"""Stored offsets have no owner. So who stores under a reference may store a number of its own
beside them, under the reference with this suffix. Who finds another number there is not alone."""
LEAST_CLAIM = KEPT + (KEPT >> 1)

BEGINNING = KEPT - 2
"""The copy of a reference that began with offset 0 and has stored nothing since."""

MOST_REMEMBERED = 10_000


class OffsetStore:
    """The offsets that the broker keeps under references, over a connection of their own.

    What is stored with `keep` is remembered when retention has passed it, too: see `KEPT`.
    """

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    async def query(self, reference: str, stream: str) -> int | None:
        """The offset stored under the reference; None where there is none, -1 before the first."""
        return (await self._found(reference, stream))[0]

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        """As `query`, and -1 too where `store_beginning` said so and nothing was stored since."""
        offset, copy = await self._found(reference, stream)
        return BEFORE_FIRST if offset is None and copy == BEGINNING else offset

    async def _found(self, reference: str, stream: str) -> tuple[int | None, int | None]:
        """The offset, by its copy where the broker forgot it, and the copy if it was read."""
        offset = await self._read(reference, stream)
        kept = kept_reference(reference)
        if kept is None or offset not in (None, 0):
            return offset, None
        copy = await self._read(kept, stream)
        if copy == 0:  # see `forget`
            return None, copy
        if offset is None and copy is not None and copy != BEGINNING:
            return copy - KEPT, copy
        return offset, copy

    async def _read(self, reference: str, stream: str) -> int | None:
        self._manager.check()
        answer = await self._manager.tracking.request(
            lambda c: QueryOffset(c, reference, stream), QueryOffsetResponse
        )
        action = f'read the offset of "{reference}" on "{stream}"'
        try:
            raise_for_code(answer.code, action, stream=stream, reference=reference)
        except NoOffset:
            return None
        return answer.offset - WORDS if answer.offset >= WORDS >> 1 else answer.offset

    async def store(self, reference: str, stream: str, offset: int, *, keep: bool = False) -> None:
        """Sends an offset to be stored. The server never answers: it can be lost without a word.

        One that is kept already stays so: the copy would contradict it otherwise.
        """
        self._manager.check()
        check_reference("the reference of an offset", reference)
        for suffix in (KEPT_SUFFIX, CLAIM_SUFFIX):
            if reference.endswith(suffix):
                raise ConfigurationError(f'a reference cannot end in "{suffix}": {reference!r}')
        if not BEFORE_FIRST <= offset < KEPT:
            raise ConfigurationError(f"offset {offset} is none: give a number from -1 on")
        kept = kept_reference(reference)
        if kept is not None and not keep and not await self._has_copy(kept, stream):
            kept = None
        connection = await self._manager.tracking.get()
        await connection.drained()
        if kept is not None:
            connection.send(StoreOffset(kept, stream, KEPT + offset))
        connection.send(StoreOffset(reference, stream, offset % WORDS))

    async def _has_copy(self, kept: str, stream: str) -> bool:
        """Whether the reference was stored with `keep`; asked once for those that were not."""
        if (kept, stream) in self._manager.not_kept:
            return False
        try:
            if await self._read(kept, stream):
                return True
        except ServerError:  # what cannot be read cannot be stored either, and storing is silent
            return False
        if len(self._manager.not_kept) >= MOST_REMEMBERED:
            self._manager.not_kept.clear()
        self._manager.not_kept.add((kept, stream))
        return False

    async def store_beginning(self, reference: str, stream: str) -> None:
        """Remembers that the reference began with offset 0, while nothing is stored under it.

        Only the copy is stored, so that nothing counts as settled. Raises CommitNotVerified.
        """
        kept = kept_reference(reference)
        if kept is not None:
            send = partial(self._send, kept, stream, BEGINNING)
            await self._until_found(kept, stream, BEGINNING, send)

    async def claim(self, reference: str, stream: str) -> int | None:
        """Sends a number that is drawn for it, as the last who stores under the reference.

        None where the reference is too long for another name beside it.
        """
        name = reference + CLAIM_SUFFIX
        if len(name.encode()) > MAX_NAME:
            return None
        self._manager.check()
        number = random.randrange(LEAST_CLAIM, WORDS >> 1)
        await self._send(name, stream, number)
        return number

    async def claimed(self, reference: str, stream: str) -> int | None:
        """The number of who claimed the reference last; None where nobody did."""
        name = reference + CLAIM_SUFFIX
        number = None if len(name.encode()) > MAX_NAME else await self._read(name, stream)
        return number or None  # 0: see `forget`

    async def forget(self, reference: str, stream: str) -> None:
        """Gives a reference up: nothing counts as stored under it from now on.

        There is no command that deletes one. 0 is stored under both of its names, so the broker
        drops them with the others that retention has passed. Raises CommitNotVerified.

        Retention may pass at any time between: the copy comes first, so that an end before the last
        step changes nothing, and last, so that it is never the other name alone that is left at 0.
        """
        kept = kept_reference(reference)
        if kept is None:
            raise ConfigurationError(
                f"the reference {reference!r} cannot be forgotten: it is not kept, and the broker "
                "drops it when retention has passed its offset"
            )
        names = [kept, reference, kept]
        if await self.claimed(reference, stream):
            names.append(reference + CLAIM_SUFFIX)
        for name in names:
            await self._until_found(name, stream, 0, partial(self._send, name, stream, 0))

    async def _send(self, reference: str, stream: str, number: int) -> None:
        connection = await self._manager.tracking.get()
        await connection.drained()
        connection.send(StoreOffset(reference, stream, number))

    async def store_verified(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        """Stores an offset and reads it back; raises CommitNotVerified if it did not arrive.

        For `request_timeout` both are tried again, over lost connections too.
        """
        send = partial(self.store, reference, stream, offset, keep=keep)
        await self._until_found(reference, stream, offset, send)

    async def _until_found(
        self, reference: str, stream: str, offset: int, send: Callable[[], Awaitable[None]]
    ) -> None:
        settings = self._manager.settings
        deadline = anyio.current_time() + settings.request_timeout
        attempt = 0
        while True:
            found, failure = None, None
            try:
                await send()
                found = await self._read(reference, stream)
            except TRANSIENT as error:
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

    __slots__ = ("_count", "_every", "begun", "last", "stored")

    def __init__(self, tracking: AutoTracking | str) -> None:
        self._every = tracking.messages if isinstance(tracking, AutoTracking) else None
        self._count = 0
        self.begun: int | None = None
        """The offset it began behind: up to there nothing is its own to store."""
        self.last: int | None = None
        self.stored: int | None = None

    def processed(self, last_offset: int, messages: int) -> int | None:
        if self._every is None:
            return None
        self.last = last_offset
        self._count += messages
        return self.due() if self._count >= self._every else None

    def passed(self, offset: int) -> None:
        """Everything up to `offset` is done with: what a filter left out, too."""
        behind = self.begun if self.last is None else self.last
        if self._every is not None and behind is not None and offset > behind:
            self.last = offset

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
        self.last = self.stored = self.begun = None
        self._count = 0
