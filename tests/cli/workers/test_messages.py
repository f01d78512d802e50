"""Messages between parent and workers: whole, bounded, and never trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.workers.messages import HEADER, MAX_FRAME, BadFrame, decoded, encoded, size_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_message_comes_back_as_it_was(fields: dict[str, object]) -> None:
    message = {**fields, "kind": "answer"}
    frame = encoded(message)
    assert size_of(frame[:HEADER]) == len(frame) - HEADER
    assert decoded(frame[HEADER:]) == message


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(body: bytes) -> None:
    try:
        message = decoded(body)
    except BadFrame:
        return
    assert isinstance(message["kind"], str)


def test_a_size_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(BadFrame):
        size_of((MAX_FRAME + 1).to_bytes(HEADER, "big"))
    with pytest.raises(BadFrame):
        encoded({"kind": "answer", "body": "x" * MAX_FRAME})


def test_deep_nesting_is_no_message() -> None:
    with pytest.raises(BadFrame):
        decoded(b"[" * 100_000)
