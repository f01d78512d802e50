"""The window admits up to its limits, and one message that is larger than all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.window import Window, fitting


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 100)
)
def test_the_window_is_never_exceeded_but_by_a_single_large_message(sizes, messages, room):
    window, start, inside = Window(messages, room), 0, []
    while start < len(sizes):
        space, space_bytes = window.room()
        some = sizes[start : start + space]
        take = fitting(some, space_bytes, first=not window.messages) if space else 0
        if take:
            window.admit(take, sum(sizes[start : start + take]))
            inside += sizes[start : start + take]
            start += take
            assert window.messages <= messages
            assert window.bytes <= room or window.messages == 1
        else:
            assert inside, "an empty window must admit something"
            window.release(1, inside.pop(0))
    assert window.messages == len(inside)
    assert window.bytes == sum(inside)
