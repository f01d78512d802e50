"""Bytes to frames: `u32 size` and so many bytes (protocol document, section "Frame Structure").

Bytes are read straight into the reader's buffer (`room`, then `filled`), and a frame is a view of
it: only the beginning of an unfinished frame is ever copied. A size over the limit is
refused before anything of it is kept. The buffer grows only with bytes that have come, whatever
size a frame announces.
"""

from __future__ import annotations

from struct import Struct

FIRST_SIZE = 1 << 12
MOST_READ = 1 << 20
"""The buffer doubles up to this size while reads fill it, and beyond it only for a larger frame.
It is halved again while little of it is used: large frames tend to come in a row."""

_SIZE = Struct(">I")


class FrameReader:
    """Cuts what arrives into frames of at most `max_size` bytes (0: no limit).

    Frames are valid until the next call. After a frame over the limit
    `oversized` holds its size, and nothing more is read.
    """

    __slots__ = ("_buffer", "_end", "_needed", "_start", "max_size", "oversized")

    def __init__(self, max_size: int = 0) -> None:
        self.max_size: int = max_size
        self.oversized: int = 0
        self._buffer = bytearray(FIRST_SIZE)
        self._start = self._end = 0
        self._needed = 4

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished frame are held, its size prefix included."""
        return self._end - self._start

    def room(self, least: int = 1) -> memoryview:
        """Where to write the next bytes: `least` bytes or more."""
        size, held = len(self._buffer), self._end - self._start
        wanted = size
        if self._end == size:
            wanted = min(2 * size, max(MOST_READ, self._needed))
        elif size > MOST_READ and max(self._end, self._needed) <= size // 4:
            wanted = max(MOST_READ, size // 2)
        wanted = max(wanted, held + least)
        if wanted != size or self._start:
            old = memoryview(self._buffer)[self._start : self._end]
            if wanted != size:
                self._buffer = bytearray(wanted)
            memoryview(self._buffer)[:held] = old
            self._start, self._end = 0, held
        return memoryview(self._buffer)[held:]

    def filled(self, count: int) -> list[memoryview]:
        """The frames that are complete, without their size prefix, now that `count` bytes were
        written into the room."""
        self._end += count
        frames: list[memoryview] = []
        self._start += self._cut(memoryview(self._buffer)[self._start : self._end], frames)
        return frames

    def put(self, data: bytes) -> list[memoryview]:
        """`room` and `filled` in one, for bytes that were read elsewhere."""
        size = len(data)
        self.room(size)[:size] = data
        return self.filled(size)

    def feed(self, data: bytes) -> list[memoryview]:
        """`put`, with frames that stay valid."""
        return [memoryview(bytes(frame)) for frame in self.put(data)]

    def _cut(self, view: memoryview, frames: list[memoryview]) -> int:
        """Append the whole frames of `view`. Returns how many bytes they take."""
        position, end = 0, len(view)
        limit = self.max_size
        self._needed = 4
        while end - position >= 4 and not self.oversized:
            size: int = _SIZE.unpack_from(view, position)[0]
            after = position + 4 + size
            if limit and size > limit:
                self.oversized = size
            elif after > end:
                self._needed = 4 + size
                break
            else:
                frames.append(view[position + 4 : after])
                position = after
        return end if self.oversized else position
