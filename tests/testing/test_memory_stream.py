"""The stream in memory against the plainest model of it: a list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import Message
from flowstream.client import AmqpMessage
from flowstream.testing import Crash, Disconnect, Marker, MemoryStream, Pause

ITEMS = st.lists(
    st.one_of(
        st.binary(max_size=3), st.sampled_from([Crash(), Disconnect(), Pause(1)]), st.integers()
    ),
    max_size=30,
)


def filled(appends: list[list], chunk_size: int = 4) -> MemoryStream:
    stream = MemoryStream(chunk_size=chunk_size)
    for time, items in enumerate(appends):
        stream.append(items, timestamp=time)
    return stream


def chunks(stream: MemoryStream) -> list:
    found, offset = [], stream.first_offset
    while offset is not None and (chunk := stream.chunk_at(offset)) is not None:
        found.append(chunk)
        offset = chunk.last + 1
    return found


@given(st.lists(ITEMS, max_size=5), st.integers(1, 7))
def test_everything_is_there_once_in_order_and_in_bounded_chunks(appends, chunk_size):
    stream = filled(appends, chunk_size)
    bodies = [
        item if isinstance(item, bytes) else str(item).encode()
        for items in appends
        for item in items
        if not isinstance(item, Marker)
    ]
    assert stream.bodies == bodies
    assert len(stream) == stream.next_offset == len(bodies)
    assert [body for chunk in chunks(stream) for body in chunk.bodies] == bodies
    assert all(0 < len(chunk.bodies) <= chunk_size for chunk in chunks(stream))
    assert all(chunk.offset <= o <= chunk.last for o in range(len(bodies))
               if (chunk := stream.chunk_at(o)))  # fmt: skip
    assert stream.chunk_at(len(bodies)) is None
    assert (stream.last_offset, stream.first_offset) == (
        (len(bodies) - 1, 0) if bodies else (None, None)
    )


@given(ITEMS)
def test_a_marker_happens_once_before_the_message_it_stands_before(items):
    stream = filled([items])
    met, offset = [], 0
    while True:
        if (marker := stream.take_marker(offset)) is not None:
            met.append(marker)
        elif (chunk := stream.chunk_at(offset)) is not None:
            met.extend(chunk.bodies)
            offset = chunk.last + 1
        else:
            break
    assert met == [str(item).encode() if isinstance(item, int) else item for item in items]
    assert stream.markers == ()


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 40), st.integers(0, 40))
def test_truncation_leaves_whole_chunks_and_numbers_begin_at_themselves(sizes, before, offset):
    stream = filled([[b"x"] * size for size in sizes])
    whole = chunks(stream)
    stream.truncate(before)
    left = [chunk for chunk in whole if chunk.last >= before] or whole[-1:]
    assert chunks(stream) == left
    first = left[0].offset if left else stream.next_offset
    assert stream.locate(offset) == (max(offset, first) if left else offset)
    assert stream.locate("first") == first
    assert stream.locate("last") == (left[-1].offset if left else stream.next_offset)
    assert stream.locate("next") == stream.next_offset


def test_points_in_time_begin_at_a_chunk():
    stream = MemoryStream()
    now = datetime.now(UTC)
    for age in (3, 2, 1):
        stream.append([b"a", b"b"], timestamp=int((now - timedelta(hours=age)).timestamp() * 1000))
    assert stream.locate(timedelta(hours=2, minutes=30)) == 2
    assert stream.locate(now - timedelta(hours=1, minutes=30)) == 4
    assert stream.locate(timedelta(days=1)) == 0
    assert stream.locate(now) == 6


def test_markers_before_the_beginning_are_passed_by():
    stream = filled([[Crash(), b"0", Pause(1), b"1", Disconnect()]])
    stream.forget_markers(1)
    assert stream.markers == (Pause(1), Disconnect())
    assert stream.take_marker(0) is None


@pytest.mark.parametrize(
    ("item", "body"),
    [
        (b"\x00", b"\x00"),
        ("é", "é".encode()),
        ({"a": [1]}, b'{"a":[1]}'),
        (AmqpMessage.of(b"x"), AmqpMessage.of(b"x").raw),
        (bytearray(b"\xff"), b"\xff"),
    ],
)
def test_what_becomes_of_an_item(item, body):
    assert filled([[item]]).bodies == [body]


@pytest.mark.parametrize("item", [Crash, Message.new({"a": 1}), object(), {"a": float("nan")}])
def test_what_cannot_be_a_message_is_named(item):
    with pytest.raises(ValueError, match=r"^message .*: expected bytes, .* as Crash\(\)"):
        filled([[item]])
