"""The chunk: what Deliver carries and a stream stores. This is the consumer's hot path.

    48 bytes header · simple entries `0|len:31` body · sub-entries `1|compression:3|0:4`, u16
    records, u32 uncompressed size, u32 size, data (a run of `u32 len` body, maybe compressed)

Source: the protocol document, section "Deliver", and osiris_log. An entry has one offset for each
record in it; `entries` counts entries, `records` offsets. Bloom filter and trailer have sizes in
the header but are not sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import repeat
from struct import Struct
from struct import error as struct_error
from typing import Any

from flowstream.errors import ChecksumMismatch, ConfigurationError, ProtocolError
from flowstream.protocol.compression import Compression, compress, decompress
from flowstream.protocol.runs import PROBE, WORTH, cut, run_length
from flowstream.protocol.values import IS_SUB_ENTRY, SUB_ENTRY, SUB_ENTRY_HEADER, SubEntry

USER = 0
TRACKING_DELTA = 1
TRACKING_SNAPSHOT = 2
MAGIC_AND_VERSION = 0x50
HEADER_SIZE = 48
MAX_ENTRIES = 65535
MAX_UNCOMPRESSED = 64 << 20
"""The most that a sub-entry may announce (the limit of servers from 4.3.5 on)."""

SHORT = 512
"""Below this mean length a body is cut together with the length of the next one. Of longer bodies
the copying takes most of the time."""

_HEADER = Struct(">BBHIqQQIIIB3x")
_LENGTH = Struct(">I")


class Chunk:
    """One chunk: the fields of its header, and its data section as a view of its bytes.

    `type` USER or one of the tracking types; `timestamp` in milliseconds since 1970; `offset` of
    the first record, which is also the chunk's id; `crc` the announced CRC-32 of `data`.
    """

    bloom_size: int
    crc: int
    entries: int
    epoch: int
    offset: int
    records: int
    timestamp: int
    trailer_length: int
    type: int

    __slots__ = (
        "_bytes",
        "bloom_size",
        "crc",
        "data",
        "entries",
        "epoch",
        "offset",
        "records",
        "timestamp",
        "trailer_length",
        "type",
    )

    def __init__(self, buffer: bytes | bytearray | memoryview) -> None:
        """Read the header and check that the data section is there; else ProtocolError."""
        if len(buffer) < HEADER_SIZE:
            raise ProtocolError(f"a chunk of {len(buffer)} bytes has no header")
        (
            magic,
            self.type,
            self.entries,
            self.records,
            self.timestamp,
            self.epoch,
            self.offset,
            self.crc,
            size,
            self.trailer_length,
            self.bloom_size,
        ) = _HEADER.unpack_from(buffer)
        if magic != MAGIC_AND_VERSION:
            raise ProtocolError(f"a chunk begins with {magic:#04x}, not with 0x50")
        if size > len(buffer) - HEADER_SIZE:
            raise ProtocolError(
                f"a chunk announces {size} bytes of data, {len(buffer) - HEADER_SIZE} are there"
            )
        if self.entries * 4 > size:
            raise ProtocolError(f"a chunk of {size} bytes cannot hold {self.entries} entries")
        self._bytes = bytes(
            buffer
        )  # no copy if they are bytes already: bodies are cut from bytes only
        self.data: memoryview = memoryview(self._bytes)[HEADER_SIZE : HEADER_SIZE + size]

    @classmethod
    def parse(cls, buffer: bytes | bytearray | memoryview) -> Chunk:
        """The chunk at the beginning of `buffer`."""
        return cls(buffer)

    def verify(self) -> None:
        """Raise ChecksumMismatch unless the data has the announced CRC-32."""
        found = zlib.crc32(self.data)
        if found != self.crc:
            raise ChecksumMismatch(
                f"the chunk at offset {self.offset} has the CRC-32 {found:#010x}, "
                f"its header says {self.crc:#010x}"
            )

    def bodies(self, max_uncompressed: int = MAX_UNCOMPRESSED) -> list[bytes]:
        """The message bodies in offset order: the first one has `offset`, the next one more.

        Tracking chunks have none. Raises ProtocolError unless the data is exactly so many entries
        and records as announced, and on a sub-entry over `max_uncompressed` bytes.
        """
        if self.type != USER:
            return []
        data, end = self._bytes, HEADER_SIZE + len(self.data)
        try:
            found = _cut_simple(data, HEADER_SIZE, end, self.entries)
            if found is None:
                found = _cut_any(data, HEADER_SIZE, end, self.entries, max_uncompressed)
        except struct_error:
            raise ProtocolError(f"the chunk at offset {self.offset} ends too early") from None
        if len(found) != self.records:
            raise ProtocolError(
                f"the chunk at offset {self.offset} has {len(found)} records, "
                f"announced are {self.records}"
            )
        return found


def _cut_simple(data: bytes, position: int, end: int, count: int) -> list[bytes] | None:
    """The bodies of `count` simple entries that end exactly at `end`; None if they are not that.

    Nearly every chunk has only simple entries, so they are cut without checks. The first word of
    anything else, above all of a sub-entry, leads beyond the end if it is taken for a length, and
    positions only grow. So the last position proves all entries.
    """
    if end >= IS_SUB_ENTRY:
        return None
    found: list[bytes] = []
    append = found.append
    unpack = _LENGTH.unpack_from
    try:
        while count:
            some = min(count, PROBE)
            stride: int = 4 + unpack(data, position)[0]
            if some >= WORTH and run_length(data, position, stride, WORTH) == WORTH:
                some = run_length(data, position, stride, count)
                found += cut(data, position, f"4x{stride - 4}s", some)
                position += some * stride
            elif end - position < SHORT * count:
                position = _cut_short(data, position, some, found)
            else:
                for _ in repeat(None, some):
                    start = position + 4
                    position = start + unpack(data, position)[0]
                    append(data[start:position])
            count -= some
    except struct_error:
        return None
    return found if position == end else None


@cache
def _with_next() -> list[Callable[[bytes, int], tuple[Any, ...]]]:
    """By its length: what reads a body and the length of the next one, with one call for both."""
    return [Struct(f">{length}sI").unpack_from for length in range(2 * SHORT)]


def _cut_short(data: bytes, position: int, count: int, found: list[bytes]) -> int:
    """Append the bodies of `count` simple entries, most of them short. Returns where they end."""
    append, unpack, with_next = found.append, _LENGTH.unpack_from, _with_next()
    length: int = unpack(data, position)[0]
    start = position + 4
    for _ in repeat(None, count - 1):
        try:
            body, following = with_next[length](data, start)
        except IndexError:
            body, following = data[start : start + length], unpack(data, start + length)[0]
        append(body)
        start += length + 4
        length = following
    append(data[start : start + length])
    return start + length


def _cut_any(
    data: bytes, position: int, end: int, count: int, max_uncompressed: int
) -> list[bytes]:
    """The bodies of `count` entries of both kinds that end exactly at `end`."""
    found: list[bytes] = []
    unpack = _LENGTH.unpack_from
    for _ in repeat(None, count):
        length: int = unpack(data, position)[0]
        start = position + 4
        if length >= IS_SUB_ENTRY:
            position = _read_sub_entry(data, position, end, found, max_uncompressed)
        elif start + length > end:
            raise ProtocolError(
                f"an entry of {length} bytes in the last {end - start} of its chunk"
            )
        else:
            position = start + length
            found.append(data[start:position])
    if position != end:
        raise ProtocolError(f"{end - position} bytes after the last entry of a chunk")
    return found


def _read_sub_entry(
    data: bytes, position: int, end: int, found: list[bytes], max_uncompressed: int
) -> int:
    """Append the bodies of the sub-entry at `position`. Returns the position after it."""
    kind, records, uncompressed, size = SUB_ENTRY.unpack_from(data, position)
    start = position + SUB_ENTRY_HEADER
    after: int = start + size
    if kind >> 4 & 7 > Compression.ZSTD:
        raise ProtocolError(f"a sub-entry has the unknown compression {kind >> 4 & 7}")
    if after > end or records * 4 > uncompressed or uncompressed > max_uncompressed:
        raise ProtocolError(
            f"a sub-entry of {size} bytes cannot hold {records} messages in {uncompressed} bytes"
        )
    run = decompress(Compression(kind >> 4 & 7), data[start:after], uncompressed)
    bodies = _cut_simple(run, 0, len(run), records)
    if bodies is None:
        raise ProtocolError(f"a sub-entry does not hold exactly {records} messages")
    found += bodies
    return after


def sub_entry(
    publishing_id: int, bodies: Sequence[bytes], compression: Compression = Compression.NONE
) -> SubEntry:
    """These messages as one entry with one publishing id; at most 65535 of them."""
    if not 0 < len(bodies) <= MAX_ENTRIES:
        raise ConfigurationError(f"a sub-entry holds 1 to {MAX_ENTRIES} messages")
    parts = [b""] * (2 * len(bodies))
    parts[::2] = map(_LENGTH.pack, map(len, bodies))
    parts[1::2] = bodies
    run = b"".join(parts)
    return SubEntry(publishing_id, compression, len(bodies), len(run), compress(compression, run))


def simple_entry(body: bytes) -> bytes:
    """The entry of one message."""
    return _LENGTH.pack(len(body)) + body


def build_chunk(
    entries: Sequence[bytes],
    *,
    records: int,
    offset: int,
    timestamp: int,
    epoch: int = 1,
    type: int = USER,
    bloom_size: int = 0,
) -> bytes:
    """A chunk of raw entries (as in `Entries.entries`) that hold `records` messages.

    `bloom_size` is what the header says of the filter, which itself is not sent.
    """
    if len(entries) > MAX_ENTRIES:
        raise ConfigurationError(f"a chunk holds at most {MAX_ENTRIES} entries")
    data = b"".join(entries)
    header = _HEADER.pack(
        MAGIC_AND_VERSION,
        type,
        len(entries),
        records,
        timestamp,
        epoch,
        offset,
        zlib.crc32(data),
        len(data),
        0,
        bloom_size,
    )
    return header + data
