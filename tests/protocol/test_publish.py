"""Publish frames out and in: the bulk encoders against the codec, splitting, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import LocalProtocolError, ProtocolError
from tests.protocol.strategies import sub_entries, text, u8, u64

bodies = st.lists(st.binary(max_size=20), max_size=40)


@st.composite
def uneven(draw: st.DrawFn) -> list[bytes]:
    """Bodies with runs of one size, as streams have them."""
    found: list[bytes] = []
    for _ in range(draw(st.integers(0, 5))):
        size, count = draw(st.integers(0, 300)), draw(st.integers(1, 90))
        found += [bytes([i % 256]) * size for i in range(count)]
    return found


@given(u8, st.integers(0, 1 << 63), bodies | uneven())
def test_consecutive_ids_are_encoded_as_the_codec_does(publisher: int, first: int, data):
    frame = p.encode_publish(publisher, first, data)
    assert frame == p.encode(p.Publish(publisher, list(enumerate(data, first))))


@given(u8, st.lists(st.tuples(u64, st.binary(max_size=20)), max_size=30))
def test_any_ids_are_encoded_as_the_codec_does(publisher: int, messages):
    ids, data = [m[0] for m in messages], [m[1] for m in messages]
    frame = p.encode_publish_ids(publisher, ids, data)
    assert frame == p.encode(p.Publish(publisher, messages))


@given(u8, st.lists(st.tuples(u64, text | st.none(), st.binary(max_size=20)), max_size=20))
def test_filtered_messages_are_encoded_as_the_codec_does(publisher: int, messages):
    columns = [[m[i] for m in messages] for i in range(3)]
    frame = p.encode_publish_filtered(publisher, *columns)
    assert frame == p.encode(p.PublishFiltered(publisher, messages))


@given(u8, st.lists(sub_entries, max_size=5))
def test_sub_entries_are_encoded_as_the_codec_does(publisher: int, batches):
    frame = p.encode_sub_entries(publisher, batches)
    assert frame == p.encode(p.Publish(publisher, batches))


@given(uneven(), st.lists(sub_entries, max_size=3), st.randoms(use_true_random=False))
def test_a_server_finds_ids_entries_and_records(data, batches, random):
    messages: list = [*enumerate(data, 5), *batches]
    random.shuffle(messages)
    command = p.decode(p.encode(p.Publish(3, messages))[4:])
    assert isinstance(command, p.Publish)
    found = command.messages
    assert isinstance(found, p.Entries)
    simple = [m for m in messages if isinstance(m, tuple)]
    assert list(found) == messages
    assert len(found) == len(messages)
    assert found.records == len(simple) + sum(b.records for b in batches)
    assert [messages[i] for i in found.batches] == [m for m in messages if m in batches]
    assert b"".join(found.entries) == b"".join(
        p.simple_entry(m[1]) if isinstance(m, tuple) else p.sub_entry_bytes(m) for m in messages
    )


def test_what_was_received_is_stored_as_it_came():
    data = [b"a", b"bc", b""]
    command = p.decode(p.encode_publish(1, 9, data)[4:])
    assert isinstance(command, p.Publish)
    found = command.messages
    assert isinstance(found, p.Entries)
    chunk = p.build_chunk(found.entries, records=found.records, offset=0, timestamp=0)
    assert p.Chunk.parse(chunk).bodies() == data
    assert found[0] == (9, b"a")
    assert found[1:] == [(10, b"bc"), (11, b"")]


@given(u8, uneven(), st.data())
def test_a_count_or_length_that_lies_is_a_protocol_error(publisher, data, more):
    frame = bytearray(p.encode_publish(publisher, 0, data)[4:])
    position = more.draw(st.integers(5, len(frame) - 1))
    frame[position] ^= more.draw(st.integers(1, 255))
    try:
        command = p.decode(bytes(frame))
    except ProtocolError:
        return
    assert isinstance(command, p.Publish)
    assert p.encode(command) == len(frame).to_bytes(4) + frame


def test_version_2_has_no_sub_entries():
    frame = bytes.fromhex("0002 0002 01 00000001 0000000000000001 ffff 80000000 00000000 00000000")
    with pytest.raises(ProtocolError):
        p.decode(frame)


def test_a_filter_value_must_be_utf_8():
    frame = bytes.fromhex("0002 0002 01 00000001 0000000000000001 0001 ff 00000000")
    with pytest.raises(ProtocolError):
        p.decode(frame)


@pytest.mark.parametrize(
    ("batch", "sound"),
    [
        (p.SubEntry(1, 0, 1, 4, b"\0\0\0\0"), True),
        (p.SubEntry(1, 4, 65535, 4 * 65535, b"x"), True),
        (p.SubEntry(1, 5, 1, 4, b"x"), False),
        (p.SubEntry(1, 1, 0, 4, b"x"), False),
        (p.SubEntry(1, 1, 2, 7, b"x"), False),
        (p.SubEntry(1, 1, 1, 4, b""), False),
        (p.SubEntry(1, 1, 1, (64 << 20) + 1, b"x"), False),
    ],
)
def test_sub_entries_that_newer_servers_refuse(batch: p.SubEntry, sound: bool):
    assert p.sub_entry_is_sound(p.sub_entry_bytes(batch)) == sound


@given(st.lists(st.integers(0, 200), max_size=50), st.integers(0, 500))
def test_pitfall_12_frames_are_split_at_frame_max_counting_overhead(lengths, frame_max):
    data = [bytes(length) for length in lengths]
    ends = p.split_at(lengths, frame_max)
    starts = [0, *ends][: len(ends)]
    assert ends == sorted(set(ends))
    assert ends[-1:] == [len(lengths)][: len(lengths)]
    parts = [data[a:b] for a, b in zip(starts, ends, strict=True)]
    for i, part in enumerate(parts):
        size = len(p.encode_publish(1, 0, part)) - 4
        assert not frame_max or size <= frame_max or len(part) == 1
        if i + 1 < len(parts) and len(part) >= 1 and p.fits(len(part[0]), frame_max):
            more = len(p.encode_publish(1, 0, [*part, parts[i + 1][0]])) - 4
            assert more > frame_max


@given(st.integers(0, 300), st.integers(1, 300))
def test_fits_is_exact(length: int, frame_max: int):
    size = len(p.encode_publish(1, 0, [bytes(length)])) - 4
    assert p.fits(length, frame_max) == (size <= frame_max)
    assert p.fits(length, 0)


def test_overheads_are_those_of_the_frames():
    assert len(p.encode_publish(1, 0, [])) - 4 == p.FRAME_OVERHEAD
    assert len(p.encode_publish(1, 0, [b""])) - 4 == p.FRAME_OVERHEAD + p.ENTRY_OVERHEAD
    batch = p.SubEntry(1, 0, 1, 4, bytes(4))
    size = len(p.encode_sub_entries(1, [batch])) - 4
    assert size == p.FRAME_OVERHEAD + p.SUB_ENTRY_OVERHEAD + 4


def test_what_the_wire_cannot_carry_is_refused():
    with pytest.raises(LocalProtocolError):
        p.encode_publish(256, 0, [b""])
    with pytest.raises(LocalProtocolError):
        p.encode_publish(1, -1, [b""])
    with pytest.raises(LocalProtocolError):
        p.encode_publish_ids(1, [1], [b"", b""])
    with pytest.raises(LocalProtocolError):
        p.encode_publish_filtered(1, [1], ["x" * 32768], [b""])
    with pytest.raises(LocalProtocolError):
        p.encode_publish_filtered(1, [-1], [None], [b""])
    with pytest.raises(LocalProtocolError):
        p.encode_publish_filtered(1, [1, 2], [None], [b""])
    with pytest.raises(LocalProtocolError):
        p.encode_publish_filtered(1, [1], ["\ud800"], [b""])
    with pytest.raises(LocalProtocolError):
        p.encode_sub_entries(1, [p.SubEntry(1, 0, 65536, 4, b"")])
