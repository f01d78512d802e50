"""What a stream holds behind an offset: how many messages, and how old the first of them is.

Offsets are not messages: each record that the broker writes for itself (stored offsets) takes one.
Nothing tells which ones, but readers are never sent them. So a stream ends where the last chunk
that a reader is sent ends, and what lies behind an offset is counted by reading it, once. Of more
than COUNTED offsets the broker's own are a small share: those count as messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowstream.client.connecting.manager import ConnectionManager
from flowstream.protocol import USER, Chunk, Key, OffsetSpec

from .options import Match
from .probe import newest_chunk, probe_some

COUNTED = 10_000
CHUNKS = 200
BYTES = 1 << 20
"""What one look reads at most, in chunks and in bytes (and one chunk more)."""

MOST_CREDIT = 50

FEW = 100
"""So few offsets are counted in any case: with a record of the broker's own behind each message,
they would be seen."""


@dataclass(frozen=True, slots=True)
class StreamBacklog:
    """What a stream holds behind an offset: so many `messages`, the first of them `written` then
    (ms since 1970; None where there are none). `last` is the offset of the stream's last message,
    None where it has none."""

    last: int | None
    messages: int
    written: int | None


class Tally:
    """The messages behind an offset, by chunks that were read to count them. Pure.

    `upto` is the last offset that is counted.
    """

    __slots__ = ("_behind", "_chunks", "_whole", "upto")

    def __init__(self) -> None:
        self._chunks: deque[tuple[Sequence[int], int]] = deque()
        self.clear()

    def clear(self) -> None:
        """Forget everything: nothing is counted."""
        self._chunks.clear()
        self._whole = 0
        self._behind = self.upto = -1

    def __len__(self) -> int:
        """How many chunks are remembered."""
        return len(self._chunks)

    def begin(self, behind: int) -> None:
        """From now on only what lies behind this offset counts."""
        if behind < self._behind:
            self.clear()
        self._behind = behind
        self.upto = max(self.upto, behind)
        while self._chunks and self._chunks[0][0][-1] <= behind:
            self._whole -= len(self._chunks.popleft()[0])

    def add(self, offsets: Sequence[int], end: int, written: int) -> None:
        """A chunk was read that ends before the offset `end`; `offsets` are its messages'."""
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
        """When the chunk of the first message was written; None where none was read."""
        return self._chunks[0][1] if self._chunks else None


class LagProbe:
    """Looks at one stream again and again, and asks only for what can have changed.

    A look costs one request for statistics, and what has come since is looked at by subscribing
    for a moment. Below RabbitMQ 3.11 there are no statistics: the last chunk is read every time.
    One task looks at a time.
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
        self._newest: int | None = None
        self._doubted: int | None = None
        self._last: int | None = None
        self._last_written = 0
        self._seen: int | None = None

    async def look(self, behind: int) -> StreamBacklog:
        """What the stream holds behind the offset now; -1: all that it holds."""
        self._manager.check()
        await self._find_last()
        last, seen, tally = self._last, self._seen, self._tally
        self._seen = last
        if last is None or (seen is not None and last < seen):  # another stream of the same name
            tally.clear()
        if last is None or last <= behind:
            return StreamBacklog(last, 0, None)
        tally.begin(behind)
        keeps_up = seen is not None and behind >= seen and last - behind > FEW
        if not keeps_up:  # who does will have it before it is counted
            await self._count(last)
        messages = tally.messages + max(last - tally.upto, 0)
        written = self._last_written if tally.written is None else tally.written
        return StreamBacklog(last, messages, written if messages else None)

    async def _find_last(self) -> None:
        """The last message's offset, looked up again where the newest chunk is another one."""
        newest, known = None, False
        connection = await self._manager.locator.get()
        if connection.supports(Key.STREAM_STATS):
            newest = await newest_chunk(connection, self.stream)
            known = newest == self._newest
        if known:
            return
        chunks = await self._read(OffsetSpec.last(), 1, {})
        self._last = chunks[0].offset + chunks[0].records - 1 if chunks else None
        self._last_written = chunks[0].timestamp if chunks else 0
        if newest is None or (chunks and chunks[0].offset >= newest) or newest == self._doubted:
            self._newest = newest
        else:  # the newest chunk is a record of the broker's own, or this member does not have it
            self._doubted = newest

    async def _count(self, last: int) -> None:
        """Reads on behind what is counted, within the bounds of one look."""
        tally, chunks_left, bytes_left, credit = self._tally, CHUNKS, BYTES, 1
        while tally.upto < last and chunks_left > 0 and bytes_left > 0 and len(tally) < COUNTED:
            if len(tally) and not self._filters and last - tally.upto > COUNTED:
                return  # the first chunk tells the age, and the rest is as good as messages
            chunks = await self._read(OffsetSpec.offset(tally.upto + 1), credit, self._filters)
            for chunk in chunks:
                tally.add(self._messages(chunk), chunk.offset + chunk.records, chunk.timestamp)
            if len(chunks) < credit:
                if self._filters:  # the broker leaves out the rest, which `last` is older than
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
        """At whichever member is at hand, but for what a filter leaves buffer: there the leader's
        word is needed that nothing more is to come."""
        return await probe_some(
            self._manager, self.stream, offset, credit, filters, anywhere=not filters
        )
