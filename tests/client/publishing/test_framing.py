"""Entries as frames: what a server reads of them, and no frame over the limit."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.client.publishing.framing import FRAME_OVERHEAD, encode_entry, weights
from flowstream.client.publishing.unconfirmed import Entry

bodies = st.lists(st.binary(max_size=50), min_size=1, max_size=12)


@given(bodies, st.integers(100, 400), st.sets(st.integers(0, 11)))
def test_what_is_not_confirmed_is_in_frames_that_fit(
    items: list[bytes], frame_max: int, confirmed: set[int]
) -> None:
    entry = Entry(items, sum(12 + len(body) for body in items))
    entry.accept(5, 0.0, None)
    done = sorted(5 + number for number in confirmed if number < len(items))
    if done:
        entry.settle(done, 0, len(done))
    left = [(5 + n, body) for n, body in enumerate(items) if 5 + n not in done]
    if not left:
        return
    frames = encode_entry(7, entry, frame_max)
    assert all(len(frame) - 4 <= frame_max for frame in frames)
    read: list[Any] = []
    for frame in frames:
        command = p.decode(frame[4:])
        assert isinstance(command, p.Publish)
        assert command.publisher_id == 7
        read += command.messages
    assert read == left
    sizes = weights(entry, entry.unsettled())
    assert sum(sizes) + FRAME_OVERHEAD * len(frames) == sum(len(frame) - 4 for frame in frames)
