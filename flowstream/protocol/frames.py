"""Bytes to frames: `u32 size` and so many bytes (protocol document, section "Frame Structure").

A frame that lies whole in what was read is a view of it, nothing is copied; one that spans reads
is collected with one copy. A size over the limit is refused before anything of it is kept, and
memory is taken only for bytes that have come, however small the pieces.
"""

from __future__ import annotations

from struct import Struct

_SIZE = Struct(">I")


class FrameReader:
    """Cuts what arrives into frames of at most `max_size` bytes (0: no limit).

    After a frame over the limit `oversized` holds its size, and nothing more is read.
    """

    __slots__ = ("_needed", "_partial", "max_size", "oversized")

    def __init__(self, max_size: int = 0) -> None:
        self.max_size = max_size
        self.oversized = 0
        self._partial = bytearray()
        self._needed = 4

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished frame are held, its size prefix included."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[memoryview]:
        """The frames that are complete with `data`, without their size prefix."""
        frames: list[memoryview] = []
        view = memoryview(data)
        while self._partial:
            missing = self._needed - len(self._partial)
            self._partial += view[:missing]
            if len(view) < missing:
                return frames
            view = view[missing:]
            self._close_partial(frames)
        if not self.oversized:
            self._split(view, frames)
        return frames

    def _close_partial(self, frames: list[memoryview]) -> None:
        """The held bytes are what was needed: a size prefix, or a whole frame."""
        if self._needed == 4 and self._admit(_SIZE.unpack_from(self._partial)[0]):
            return
        if not self.oversized:
            frames.append(memoryview(self._partial)[4:])
        self._partial = bytearray()
        self._needed = 4

    def _admit(self, size: int) -> bool:
        """Note how much a frame of `size` needs; false when there is nothing more to wait for."""
        if self.max_size and size > self.max_size:
            self.oversized = size
            return False
        self._needed = 4 + size
        return size > 0

    def _split(self, view: memoryview, frames: list[memoryview]) -> None:
        position, end = 0, len(view)
        limit = self.max_size
        while end - position >= 4:
            size: int = _SIZE.unpack_from(view, position)[0]
            if limit and size > limit:
                self.oversized = size
                return
            after = position + 4 + size
            if after > end:
                self._needed = 4 + size
                break
            frames.append(view[position + 4 : after])
            position = after
        if position < end:
            self._partial = bytearray(view[position:])
