"""Chunks: every kind of entry and compression, checksums, damage, announced sizes."""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import dataclass
from struct import pack, pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import ChecksumMismatch, ConfigurationError, ProtocolError

bodies = st.lists(st.binary(max_size=30), min_size=1, max_size=5)
runs = st.tuples(st.integers(0, 40), st.integers(1, 90)).map(lambda run: [bytes(run[0])] * run[1])
kinds = st.sampled_from(p.Compression)


@dataclass(frozen=True)
class Content:
    """Entries and the bodies they hold."""

    entries: list[bytes]
    bodies: list[bytes]


@st.composite
def contents(draw: st.DrawFn) -> Content:
    entries: list[bytes] = []
    expected: list[bytes] = []
    for _ in range(draw(st.integers(0, 6))):
        found = draw(bodies | runs)
        expected += found
        if draw(st.booleans()):
            entries += map(p.simple_entry, found)
        else:
            entries.append(p.sub_entry_bytes(p.sub_entry(0, found, draw(kinds))))
    return Content(entries, expected)


def chunk_of(entries: list[bytes], records: int) -> bytes:
    return p.build_chunk(entries, records=records, offset=7, timestamp=1_700_000_000_000)


@given(contents())
def test_a_chunk_gives_back_the_bodies_in_order(content: Content):
    chunk = p.Chunk.parse(chunk_of(content.entries, len(content.bodies)))
    chunk.verify()
    assert chunk.bodies() == content.bodies
    assert (chunk.entries, chunk.records) == (len(content.entries), len(content.bodies))
    assert (chunk.offset, chunk.timestamp, chunk.epoch) == (7, 1_700_000_000_000, 1)
    assert all(type(body) is bytes for body in chunk.bodies())


@given(contents(), st.integers(0, 10), st.binary(max_size=10))
def test_a_chunk_is_read_from_anywhere_and_up_to_its_end_only(content, before, after):
    raw = chunk_of(content.entries, len(content.bodies))
    view = memoryview(bytearray(before) + raw + after)[before:]
    assert p.Chunk.parse(view).bodies() == content.bodies


@given(contents(), st.data())
def test_a_damaged_chunk_is_a_protocol_error_or_bodies(content: Content, data: st.DataObject):
    raw = bytearray(chunk_of(content.entries, len(content.bodies)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    with contextlib.suppress(ProtocolError):
        found = p.Chunk.parse(raw).bodies()
        assert len(found) == p.Chunk.parse(raw).records or p.Chunk.parse(raw).type != p.USER


def test_an_entry_is_not_read_beyond_the_chunk_it_is_in():
    raw = bytearray(chunk_of([p.simple_entry(b"abc")], 1)) + b"more"
    pack_into(">I", raw, 48, 7)
    with pytest.raises(ProtocolError, match="7 bytes"):
        p.Chunk.parse(raw).bodies()


@pytest.mark.parametrize("place", [0, 1, 700, 1399])
def test_a_sub_entry_among_many_simple_ones_is_found_wherever_it_is(place: int):
    bodies = [bytes(number % 7) for number in range(1400)]
    entries = list(map(p.simple_entry, bodies))
    entries[place] = p.sub_entry_bytes(p.sub_entry(0, [b"x", b"y"]))
    expected = [*bodies[:place], b"x", b"y", *bodies[place + 1 :]]
    assert p.Chunk.parse(chunk_of(entries, len(expected))).bodies() == expected


@pytest.mark.parametrize("long", [1023, 1024, 1 << 17])
@pytest.mark.parametrize("place", [0, 1, 511, 512, 699])
def test_a_long_body_among_many_short_ones_is_whole(place: int, long: int):
    bodies = [bytes([number % 251]) * (number % 300) for number in range(700)]
    bodies[place] = b"x" * long
    raw = chunk_of(list(map(p.simple_entry, bodies)), len(bodies))
    assert p.Chunk.parse(raw + b"more").bodies() == bodies


@pytest.mark.parametrize("lie", [0, 1023, 1024, (1 << 31) - 1])
@pytest.mark.parametrize("place", [0, 1, 511, 512, 699])
def test_a_wrong_length_among_many_is_found(place: int, lie: int):
    raw = bytearray(chunk_of([p.simple_entry(b"%03d" % number) for number in range(700)], 700))
    pack_into(">I", raw, 48 + 7 * place, lie)
    with pytest.raises(ProtocolError):
        p.Chunk.parse(raw).bodies()


def test_pitfall_2_records_and_entries_are_counted_apart():
    entries = [p.simple_entry(b"a"), p.sub_entry_bytes(p.sub_entry(0, [b"b", b"c", b"d"]))]
    chunk = p.Chunk.parse(chunk_of([*entries, p.simple_entry(b"e")], 5))
    assert (chunk.entries, chunk.records) == (3, 5)
    assert chunk.bodies() == [b"a", b"b", b"c", b"d", b"e"]


def test_pitfall_3_tracking_chunks_use_up_offsets_and_have_no_messages():
    raw = p.build_chunk([p.simple_entry(b"x")], records=1, offset=1, timestamp=0, type=1)
    assert p.Chunk.parse(raw).bodies() == []
    assert p.Chunk.parse(raw).records == 1


def test_pitfall_4_a_wrong_checksum_is_an_error():
    raw = bytearray(chunk_of([p.simple_entry(b"abc")], 1))
    raw[-1] ^= 1
    with pytest.raises(ChecksumMismatch, match="offset 7"):
        p.Chunk.parse(raw).verify()


def test_bloom_filter_and_trailer_have_sizes_but_are_not_there():
    raw = bytearray(chunk_of([p.simple_entry(b"abc")], 1))
    pack_into(">IB", raw, 40, 1000, 16)
    chunk = p.Chunk.parse(raw)
    assert (chunk.trailer_length, chunk.bloom_size) == (1000, 16)
    assert chunk.bodies() == [b"abc"]


@pytest.mark.parametrize(
    ("position", "form", "value"),
    [
        pytest.param(0, "B", 0x51, id="magic"),
        pytest.param(2, "H", 2, id="entries too many"),
        pytest.param(2, "H", 65535, id="entries beyond the bytes"),
        pytest.param(4, "I", 2, id="records"),
        pytest.param(36, "I", 8, id="data beyond the buffer"),
        pytest.param(36, "I", 6, id="data too short"),
        pytest.param(48, "I", 4, id="body too long"),
        pytest.param(48, "I", 2, id="body too short"),
        pytest.param(48, "I", 0xF000_0000, id="a sub-entry of nothing"),
    ],
)
def test_a_header_or_entry_that_lies_is_refused(position: int, form: str, value: int):
    raw = bytearray(chunk_of([p.simple_entry(b"abc")], 1))
    assert len(raw) == 48 + 7
    pack_into(">" + form, raw, position, value)
    with pytest.raises(ProtocolError):
        p.Chunk.parse(raw).bodies()


def sub_entry_chunk(kind: int, records: int, uncompressed: int, data: bytes) -> p.Chunk:
    entry = pack(">BHII", kind, records, uncompressed, len(data)) + data
    return p.Chunk.parse(chunk_of([entry], records))


@pytest.mark.parametrize("kind", p.Compression)
@pytest.mark.parametrize("announced", [-1, 1, 1000])
def test_pitfall_19_decompression_ends_at_the_announced_size(kind: p.Compression, announced: int):
    batch = p.sub_entry(0, [bytes(1000)] * 10, kind)
    size = batch.uncompressed_size + announced
    with pytest.raises(ProtocolError):
        sub_entry_chunk(0x80 | kind << 4, 10, size, batch.data).bodies()


@pytest.mark.parametrize("kind", [c for c in p.Compression if c])
@pytest.mark.medium
def test_pitfall_19_a_bomb_takes_no_more_memory_than_announced(kind: p.Compression):
    bomb = p.sub_entry(0, [bytes(1 << 25)], kind)
    chunk = sub_entry_chunk(0x80 | kind << 4, 10, 1000, bomb.data)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            chunk.bodies()
        assert tracemalloc.get_traced_memory()[1] < len(bomb.data) * 2 + 100_000
    finally:
        tracemalloc.stop()


def test_a_sub_entry_over_the_limit_is_refused_before_it_is_opened():
    with pytest.raises(ProtocolError):
        sub_entry_chunk(0x90, 10, p.MAX_UNCOMPRESSED + 1, b"").bodies()
    batch = p.sub_entry(0, [bytes(100)])
    with pytest.raises(ProtocolError):
        sub_entry_chunk(0x80, 1, 104, batch.data).bodies(max_uncompressed=103)
    assert sub_entry_chunk(0x80, 1, 104, batch.data).bodies(max_uncompressed=104)


@pytest.mark.parametrize("kind", p.Compression)
def test_damaged_compressed_data_is_a_protocol_error(kind: p.Compression):
    batch = p.sub_entry(0, [b"some message"] * 10, kind)
    for data in (b"", batch.data[:-3], batch.data[:5], b"\0" * 40, batch.data * 2):
        with pytest.raises(ProtocolError):
            sub_entry_chunk(0x80 | kind << 4, 10, batch.uncompressed_size, data).bodies()


def test_an_unknown_compression_is_refused():
    with pytest.raises(ProtocolError, match="compression 5"):
        sub_entry_chunk(0xD0, 1, 5, b"\0\0\0\1a").bodies()


def test_too_much_for_one_chunk_or_sub_entry_is_refused():
    with pytest.raises(ConfigurationError):
        p.build_chunk([b""] * 65536, records=65536, offset=0, timestamp=0)
    for many in ([], [b""] * 65536):
        with pytest.raises(ConfigurationError):
            p.sub_entry(0, many)
