"""Lag: how many messages a stream has behind an offset, and how old the first of them is.

The number of offsets is not the number of messages: records of the broker's own, such as stored
offsets, take offsets too. The broker does not tell which ones, but does not send them to readers.
So a stream ends where the last chunk ends that a reader receives, and the messages behind an offset
are counted by reading them, once. Among more than COUNTED offsets the broker's own are few, so
there every offset counts as a message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio

from flowstream.client.connecting.manager import ConnectionManager
from flowstream.protocol import USER, Chunk, Key, OffsetSpec

from .options import Match
from .probe import committed, probe_some

COUNTED = 10_000
CHUNKS = 200
BYTES = 1 << 20
"""The most that one look reads, in chunks and in bytes; it may exceed them by one chunk."""

MOST_CREDIT = 50

FEW = 100
"""Up to this number the messages are always counted: with few messages, records of the broker's own
are a large part of the offsets."""

TRIES, SOON = 5, 0.02
"""How often a reader is asked again whether it has the newest chunk, and the seconds between: one
that keeps up gets it soon."""


@dataclass(frozen=True, slots=True)
class StreamBacklog:
    """The messages of a stream behind an offset.

    `messages` is their number and `written` when the first was written (milliseconds since 1970, or
    None). `last` is the offset of the stream's last message, or None.
    """

    last: int | None
    messages: int
    written: int | None


class Tally:
    """Counts the messages behind an offset from the chunks that were read. Pure.

    `upto` is the last offset that was counted.
    """

    __slots__ = ("_behind", "_chunks", "_whole", "upto")

    def __init__(self) -> None:
        self._chunks: deque[tuple[Sequence[int], int]] = deque()
        self._whole = 0
        self._behind = -1
        self.upto: int = -1

    def clear(self) -> None:
        """Forgets everything that was counted."""
        self._chunks.clear()
        self._whole = 0
        self._behind = self.upto = -1

    def __len__(self) -> int:
        """The number of chunks that are remembered."""
        return len(self._chunks)

    def begin(self, behind: int) -> None:
        """Counts only messages behind this offset from now on."""
        if behind < self._behind:
            self.clear()
        self._behind = behind
        self.upto = max(self.upto, behind)
        while self._chunks and self._chunks[0][0][-1] <= behind:
            self._whole -= len(self._chunks.popleft()[0])

    def add(self, offsets: Sequence[int], end: int, written: int) -> None:
        """Counts a chunk that ends before offset `end` and has messages at `offsets`."""
        self.upto = max(self.upto, end - 1)
        if offsets and offsets[-1] > self._behind:
            self._chunks.append((offsets, written))
            self._whole += len(offsets)

    @property
    def messages(self) -> int:
        if not self._chunks:
            return 0
        return self._whole - bisect_right(self._chunks[0][0], self._behind)

    @property
    def written(self) -> int | None:
        """When the chunk of the first message was written; None if none was read."""
        return self._chunks[0][1] if self._chunks else None


class LagProbe:
    """Measures the lag of one stream repeatedly, and reads only what may have changed.

    A look costs one request for statistics. New chunks are read by subscribing briefly, unless a
    reader has them: the broker handles a subscription on the connection of the reader, whose next
    messages are 20 ms late then. Below RabbitMQ 3.11 there are no statistics, so each look reads
    the last chunk. Use it in one task at a time.
    """

    def __init__(
        self,
        manager: ConnectionManager,
        stream: str,
        filters: Mapping[str, str],
        match: Match | None,
    ) -> None:
        self.stream = stream
        self._manager = manager
        self._filters = filters
        self._match = match
        self._tally = Tally()
        self._first: int | None = None
        self._newest: int | None = -1
        self._doubted: int | None = None
        self._last: int | None = None
        self._last_written = 0
        self._seen: int | None = None
        self._read_to: int | None = None

    async def look(self, behind: int, read: Callable[[], int] | None = None) -> StreamBacklog:
        """The messages behind the offset now; -1 for all messages of the stream.

        Messages that retention has removed do not count, also if they did before. `read` tells how
        far a reader of this process is now: the last offset of what it has received, or -1 if it is
        not certain. If it has reached the end, there are no messages.
        """
        self._manager.check()
        newest = await self._find_newest()
        if read is not None and newest is not None and await self._is_read(newest, read):
            return StreamBacklog(self._last, 0, None)
        await self._find_last(newest)
        last, seen, tally = self._last, self._seen, self._tally
        self._seen = last
        if last is None or (seen is not None and last < seen):  # the stream was created again
            tally.clear()
        if last is None or last <= behind:
            return StreamBacklog(last, 0, None)
        retained = behind if self._first is None else max(behind, self._first - 1)
        tally.begin(retained)
        keeps_up = seen is not None and behind >= seen and last - behind > FEW
        if not keeps_up:  # a reader that keeps up has read them before they are counted
            await self._count(last)
        messages = tally.messages + max(last - tally.upto, 0)
        written = self._last_written if tally.written is None else tally.written
        return StreamBacklog(last, messages, written if messages else None)

    async def _find_newest(self) -> int | None:
        """Where the newest chunk begins; -1 if there is none, None if the broker cannot tell."""
        connection = await self._manager.locator.get()
        if not connection.supports(Key.STREAM_STATS):
            return None
        self._first, newest = await committed(connection, self.stream)
        return -1 if newest is None else newest

    async def _is_read(self, newest: int, read: Callable[[], int]) -> bool:
        """Whether a reader that has gone on since the last look has reached the newest chunk.

        If it has not gone on, its offset may come from elsewhere, such as a stored one.
        """
        before, self._read_to = self._read_to, read()
        if newest < 0 or before is None:
            return False
        for _ in range(TRIES):
            if self._read_to >= newest:
                break
            await anyio.sleep(SOON)
            self._read_to = read()
        if self._read_to <= before or self._read_to < newest:
            return False
        self._last = self._seen = self._read_to
        self._newest = None  # `_last` is no longer the end of the chunk that was the newest
        return True

    async def _find_last(self, newest: int | None) -> None:
        """Finds the offset of the last message, unless the newest chunk is still the same."""
        if newest is not None and newest == self._newest:
            return
        chunks = await self._read(OffsetSpec.last(), 1, {})
        self._last = chunks[0].offset + chunks[0].records - 1 if chunks else None
        self._last_written = chunks[0].timestamp if chunks else 0
        found = bool(chunks) and chunks[0].offset >= (newest or 0)
        if newest is None or newest < 0 or found or newest == self._doubted:
            self._newest = newest
        else:  # it holds the broker's own records, or this member is behind
            self._doubted = newest

    async def _count(self, last: int) -> None:
        """Counts what follows the last counted offset, within the limits of one look."""
        tally, chunks_left, bytes_left, credit = self._tally, CHUNKS, BYTES, 1
        while tally.upto < last and chunks_left > 0 and bytes_left > 0 and len(tally) < COUNTED:
            if len(tally) and not self._filters and last - tally.upto > COUNTED:
                return  # the first chunk gives the age, and the rest counts by offsets
            chunks = await self._read(OffsetSpec.offset(tally.upto + 1), credit, self._filters)
            for chunk in chunks:
                tally.add(self._messages(chunk), chunk.offset + chunk.records, chunk.timestamp)
            if len(chunks) < credit:
                if self._filters:  # the broker left out the rest, up to `last`
                    tally.add((), last + 1, 0)
                return
            size = max(len(chunk.data) for chunk in chunks)
            chunks_left -= len(chunks)
            bytes_left -= sum(len(chunk.data) for chunk in chunks)
            credit = max(1, min(MOST_CREDIT, chunks_left, bytes_left // max(size, 1)))

    def _messages(self, chunk: Chunk) -> Sequence[int]:
        if chunk.type != USER:
            return ()
        offsets = range(chunk.offset, chunk.offset + chunk.records)
        if self._match is None:
            return offsets
        match = self._match
        return [at for at, body in zip(offsets, chunk.bodies(), strict=True) if match(body)]

    async def _read(
        self, offset: OffsetSpec, credit: int, filters: Mapping[str, str]
    ) -> list[Chunk]:
        """Reads chunks from any connected member. With a filter from the leader, because only the
        leader can prove that the rest does not match."""
        return await probe_some(
            self._manager, self.stream, offset, credit, filters, anywhere=not filters
        )
