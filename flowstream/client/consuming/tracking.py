"""Stored offsets: reading, storing and verifying them (OffsetStore), and when to (Tracker)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from flowstream.checks import MAX_NAME, is_whole
from flowstream.client.connecting.connection import raise_for_code
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.recovery import TRANSIENT
from flowstream.errors import CommitNotVerified, ConfigurationError, NoOffset, ServerError
from flowstream.protocol import QueryOffset, QueryOffsetResponse, StoreOffset
from flowstream.texts import shown

from .options import AutoTracking

WORDS = 1 << 64
"""Brokers store offsets as unsigned numbers of 64 bits."""

BEFORE_FIRST = -1
"""The stored offset that means: offset 0 is not settled yet.

A reader begins at the stored offset + 1, so to begin at 0 it needs an offset below 0. There is no
command that deletes a stored offset, and 0 would skip the first message. So 2^64 - 1 is stored,
which is -1 as a signed number, and which other clients read in the same way."""

KEPT = 1 << 62
KEPT_SUFFIX = "#kept"
"""The suffix of a reference's second copy, and what is added to the offset stored there.

RabbitMQ drops a stored offset when retention has passed it (osiris_tracking.erl: snapshot). A
reader that was stopped for a long time would then look like a new one: it would begin at its
`offset=`, and the messages that it missed would not be reported. So the offsets of references that
are used for long are stored a second time, under the reference with this suffix and KEPT higher,
which retention never reaches. Brokers never drop such a copy, so short-lived references must not
have one."""

CLAIM_SUFFIX = "#kept.run"
"""The suffix of a reference's claim. A stored offset does not say which process stored it. So a
process may store a random number under the reference with this suffix. If it reads another number
later, another process uses the same reference."""
LEAST_CLAIM = KEPT + (KEPT >> 1)

BEGINNING = KEPT - 2
"""The second copy of a reference that began at offset 0 and has stored nothing since."""

MOST_REMEMBERED = 10_000
"""The most references that are remembered to have no second copy."""


class OffsetStore:
    """Reads and stores offsets under references, over a connection of their own.

    An offset stored with `keep` has a second copy that retention does not reach: see `KEPT`.

    After the loss of a node, a stream without a leader is not asked for offsets: RabbitMQ 4.0 ends
    the connection on which that is done, and with it the requests for all other streams.
    """

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    async def query(self, reference: str, stream: str) -> int | None:
        """The offset stored under the reference: -1 before offset 0, None if none is stored."""
        return (await self._found(reference, stream))[0]

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        """As `query`, but -1 also if only `store_beginning` was called for the reference."""
        offset, copy = await self._found(reference, stream)
        return BEFORE_FIRST if offset is None and copy == BEGINNING else offset

    async def _found(self, reference: str, stream: str) -> tuple[int | None, int | None]:
        """The offset (from its copy if the broker has dropped it), and the copy if it was read."""
        offset = await self._read(reference, stream)
        kept = kept_reference(reference)
        if kept is None or offset not in (None, 0):
            return offset, None
        copy = await self._read(kept, stream)
        if copy in (0, BEGINNING):
            return None, copy  # 0 is what `forget` left: no message was settled since
        if copy is not None and (offset is None or copy == KEPT + BEFORE_FIRST):
            return copy - KEPT, copy
        if offset == 0 and copy not in (None, KEPT):  # another may be stored since it was read
            offset = await self._read(reference, stream)
        return offset, copy

    async def _read(self, reference: str, stream: str) -> int | None:
        self._manager.check()
        await self._manager.check_leader(stream)
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
        """Sends an offset to be stored. Brokers do not answer, so it can be lost silently.

        If the reference has a second copy, the copy is stored too: an old copy would contradict it.
        """
        self._manager.check()
        for suffix in (KEPT_SUFFIX, CLAIM_SUFFIX):
            if reference.endswith(suffix):
                raise ConfigurationError(
                    f'reference={reference!r}: a reference must not end in "{suffix}"'
                )
        check_offset(offset)
        kept = kept_reference(reference)
        if kept is not None and not keep and not await self._has_copy(kept, stream):
            kept = None
        await self._manager.check_leader(stream)
        connection = await self._manager.tracking.get()
        await connection.drained()
        if kept is not None:
            connection.send(StoreOffset(kept, stream, KEPT + offset))
        connection.send(StoreOffset(reference, stream, offset % WORDS))

    async def _has_copy(self, kept: str, stream: str) -> bool:
        """Whether the reference has a second copy; read once for references without one."""
        if (kept, stream) in self._manager.not_kept:
            return False
        try:
            if await self._read(kept, stream):
                return True
        except ServerError:  # then storing fails too, silently
            return False
        if len(self._manager.not_kept) >= MOST_REMEMBERED:
            self._manager.not_kept.clear()
        self._manager.not_kept.add((kept, stream))
        return False

    async def store_beginning(self, reference: str, stream: str) -> None:
        """Records that the reference began at offset 0, before anything is stored under it.

        Only the second copy is stored, so that no offset counts as settled. Raises
        CommitNotVerified.
        """
        kept = kept_reference(reference)
        if kept is not None:
            send = partial(self._send, kept, stream, BEGINNING)
            await self._until_found(kept, stream, BEGINNING, send)

    async def claim(self, reference: str, stream: str) -> int | None:
        """Stores a new random number as the reference's claim, and returns it.

        Returns None if the reference is too long to have the suffix.
        """
        name = reference + CLAIM_SUFFIX
        if len(name.encode()) > MAX_NAME:
            return None
        self._manager.check()
        number = random.randrange(LEAST_CLAIM, WORDS >> 1)
        await self._send(name, stream, number)
        return number

    async def claimed(self, reference: str, stream: str) -> int | None:
        """The number of the last claim of the reference; None if there is none."""
        name = reference + CLAIM_SUFFIX
        number = None if len(name.encode()) > MAX_NAME else await self._read(name, stream)
        return number or None  # 0: see `forget`

    async def forget(self, reference: str, stream: str) -> None:
        """Makes `query` return None for the reference. Raises CommitNotVerified.

        There is no command that deletes a stored offset. So 0 is stored under the reference and for
        its second copy, and the broker drops both when retention has passed offset 0.

        The copy is stored first, so that a crash in between changes nothing. It is stored again at
        the end, because the broker may have dropped it meanwhile: 0 under the reference alone would
        mean that offset 0 is settled.
        """
        kept = kept_reference(reference)
        if kept is None:
            raise ConfigurationError(
                f"reference={reference!r}: too long to be forgotten, because there is no room for "
                "its second copy; the broker drops it when retention has passed its offset"
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
        """Stores an offset and reads it back; raises CommitNotVerified if that fails.

        Both are retried for `request_timeout` seconds, also over new connections.
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
            delay = settings.pause(attempt)
            if anyio.current_time() + delay > deadline:
                raise CommitNotVerified(
                    f'offset {offset} of "{reference}" on "{stream}" was not stored '
                    f"({failure or f'found {found}'}); check the user's permissions and that the "
                    "stream has a leader"
                ) from failure
            await anyio.sleep(delay)


def check_offset(offset: object) -> None:
    """Raises ConfigurationError if it cannot be stored."""
    if not is_whole(offset, BEFORE_FIRST, KEPT - 1):
        raise ConfigurationError(
            f"offset={shown(offset)}: expected 0 to 2^62 - 1, or -1 to begin at offset 0"
        )


def kept_reference(reference: str) -> str | None:
    """The reference of the second copy of an offset; None if it would be too long."""
    kept = reference + KEPT_SUFFIX
    return kept if len(kept.encode()) <= MAX_NAME else None


class Tracker:
    """Decides which offset to store, and when. Pure.

    Call `processed` after every delivery: it returns the offset to store if enough messages were
    processed. Call `due` when the interval has passed, and at the end.
    """

    __slots__ = ("_count", "_every", "begun", "last", "stored")

    def __init__(self, tracking: AutoTracking | str) -> None:
        self._every = tracking.messages if isinstance(tracking, AutoTracking) else None
        self._count = 0
        self.begun: int | None = None
        """The offset behind which the consumer began; earlier ones are not its to store."""
        self.last: int | None = None
        self.stored: int | None = None

    def processed(self, last_offset: int, messages: int) -> int | None:
        if self._every is None:
            return None
        self.last = last_offset
        self._count += messages
        return self.due() if self._count >= self._every else None

    def passed(self, offset: int) -> None:
        """Counts everything up to `offset` as processed, including what a filter left out."""
        behind = self.begun if self.last is None else self.last
        if self._every is not None and behind is not None and offset > behind:
            self.last = offset

    def due(self) -> int | None:
        """The offset to store if it has advanced, else None. It counts as stored from now on."""
        self._count = 0
        if self.last is None or self.last == self.stored:
            return None
        self.stored = self.last
        return self.stored

    def unverified(self) -> int | None:
        """The offset that must be stored at a hand-over or at the end."""
        return self.last if self._every is not None else self.stored

    def forget(self) -> None:
        """Forgets all offsets: after a hand-over they are the next consumer's to store."""
        self.last = self.stored = self.begun = None
        self._count = 0
