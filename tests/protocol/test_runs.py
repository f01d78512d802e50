"""Runs of entries of one size, against the plain way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.protocol.runs import cut, run_length

words = st.sampled_from([b"\0\0\0\1", b"\0\0\0\2", b"\0\0\1\1", b"\1\0\0\1"])


@given(
    found=st.lists(words, max_size=40),
    first=words,
    repeats=st.integers(0, 60),
    padding=st.integers(0, 9),
    before=st.integers(0, 5),
    most=st.integers(0, 120),
    torn=st.integers(0, 5),
)
def test_a_run_is_as_long_as_the_words_are_equal(
    found, first, repeats, padding, before, most, torn
):
    records = [word + bytes(padding) for word in [first] * repeats + found]
    data = bytes(before) + b"".join(records)
    data = data[: len(data) - torn]
    expected = 0
    for i in range(min(most, (len(data) - before) // (4 + padding))):
        if records[i] != records[0]:
            break
        expected += 1
    assert run_length(data, before, 4 + padding, most) == expected


@given(st.lists(st.binary(min_size=5, max_size=5), max_size=70), st.integers(0, 3))
def test_a_run_is_cut_into_its_bodies(bodies: list[bytes], before: int):
    data = bytes(before) + b"".join(b"head" + body for body in bodies) + b"tail"
    assert cut(data, before, "4x5s", len(bodies)) == bodies
