"""Bytes to frames: any cut gives the same, sizes are checked first, memory follows what came."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.protocol import FrameReader
from flowstream.protocol.frames import FIRST_SIZE, MOST_READ

payloads = st.lists(st.binary(max_size=30), max_size=8)


def framed(contents: list[bytes]) -> bytes:
    return b"".join(len(content).to_bytes(4) + content for content in contents)


@given(contents=payloads, cuts=st.lists(st.integers(0, 300), max_size=12))
def test_any_cut_of_the_bytes_gives_the_same_frames(contents: list[bytes], cuts: list[int]):
    whole = framed(contents)
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    reader = FrameReader()
    parts = [whole[a:b] for a, b in pairwise(ends)]
    assert [bytes(frame) for part in parts for frame in reader.feed(part)] == contents
    assert reader.buffered == 0


@given(contents=payloads)
def test_byte_by_byte_gives_the_same_frames(contents: list[bytes]):
    whole = framed(contents)
    reader = FrameReader()
    found = [f for i in range(len(whole)) for f in reader.feed(whole[i : i + 1])]
    assert [bytes(frame) for frame in found] == contents


@pytest.mark.parametrize("step", [1, 3, 4, 5, 100])
def test_a_frame_over_the_limit_is_refused_by_its_size(step: int):
    whole = framed([b"a" * 10, b"b" * 11, b"c"])
    reader = FrameReader(max_size=10)
    found = [f for i in range(0, len(whole), step) for f in reader.feed(whole[i : i + step])]
    assert [bytes(frame) for frame in found] == [b"a" * 10]
    assert reader.oversized == 11
    assert reader.buffered < 15


def test_a_limit_that_grows_counts_from_the_next_frame_on():
    reader = FrameReader(max_size=3)
    assert len(reader.feed(framed([b"abc"]))) == 1
    reader.max_size = 0
    assert [bytes(frame) for frame in reader.feed(framed([b"x" * 100]))] == [b"x" * 100]


def test_an_announced_size_takes_no_memory_before_its_bytes_come():
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(b"\x7f\xff\xff\xff" + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_a_large_frame_in_many_reads_is_collected_in_linear_time_and_space():
    size = 8 << 20
    piece = bytes(1 << 14)
    reader = FrameReader()
    reader.feed(size.to_bytes(4))
    tracemalloc.start()
    try:
        for _ in range(size // len(piece) - 1):
            assert reader.feed(piece) == []
        (frame,) = reader.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * size
    finally:
        tracemalloc.stop()
    assert len(frame) == size


def test_frames_outlive_the_reads_that_follow():
    reader = FrameReader()
    first = reader.feed(framed([b"first"]))
    reader.feed(framed([b"secon"])[:7])
    (second,) = reader.feed(framed([b"secon"])[7:])
    reader.feed(framed([b"third"])[:6])
    assert bytes(first[0]) == b"first"
    assert bytes(second) == b"secon"


@given(
    contents=st.lists(st.binary(max_size=9000), max_size=8), steps=st.lists(st.integers(1, 9000))
)
def test_bytes_that_are_read_into_the_room_give_the_same_frames(
    contents: list[bytes], steps: list[int]
):
    reader = FrameReader()
    found: list[bytes] = []
    left = framed(contents)
    while left:
        room = reader.room()
        some = left[: min(len(room), steps.pop() if steps else len(left))]
        assert some
        room[: len(some)] = some
        found += map(bytes, reader.filled(len(some)))
        left = left[len(some) :]
    assert found == contents
    assert reader.buffered == 0


def test_the_room_grows_while_reads_fill_it_and_shrinks_after_a_large_frame():
    reader = FrameReader()
    sizes = []
    for _ in range(12):
        room = reader.room()
        sizes.append(len(room))
        room[:] = framed([bytes(len(room) - 4)])
        reader.filled(len(room))
    assert sizes[0] == FIRST_SIZE
    assert max(sizes) == sizes[-1] == MOST_READ
    reader.put((4 * MOST_READ).to_bytes(4))
    while len(reader.room()) + reader.buffered < 4 + 4 * MOST_READ:
        room = reader.room()
        assert reader.buffered + len(room) <= max(MOST_READ, 2 * reader.buffered)
        assert reader.filled(len(room)) == []
    (frame,) = reader.filled(len(reader.room()))
    assert len(frame) == 4 * MOST_READ
    for _ in range(3):
        reader.put(framed([b"small"]))
    assert len(reader.room()) == MOST_READ
