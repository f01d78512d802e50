"""Entries of a manifest: read as they were written, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.connectors.files.manifest import (
    DataFile,
    Entry,
    Layout,
    attempt_number,
    entry_number,
    segment_number,
    sequence_of,
)
from flowstream.errors import SinkFailed

ENTRY = Entry(
    "r", "s", 7, "token", (DataFile("a=1/x", 3, 90, ((0, 1), (4, 4))),), ((0, 4),), ((4, 12),)
)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**9))
def test_an_entry_is_read_as_it_was_written(text: str, number: int) -> None:
    entry = Entry(text, text, number, text, ENTRY.files, ENTRY.done, ((3, number),))
    assert Entry.decoded("here", entry.encoded()) == entry


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"\xff", b'{"version": 1}',
        json.dumps(json.loads(ENTRY.encoded()) | {"version": 2}).encode(),
        json.dumps(json.loads(ENTRY.encoded()) | {"done": [[4, 3]]}).encode(),
        json.dumps(json.loads(ENTRY.encoded()) | {"files": [{}]}).encode(),
        ENTRY.encoded()[:-1],
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(content: bytes) -> None:
    with pytest.raises(SinkFailed, match="here is not an entry of a manifest"):
        Entry.decoded("here", content)


@pytest.mark.parametrize(
    ("name", "number"),
    [("000000012.json", 12), ("000000003.ab.json", 3), ("x.json", None), ("", None), ("²", None)],
)
def test_names_begin_with_their_number(name: str, number: int | None) -> None:
    assert sequence_of(name) == number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("000000012.ab.json", 12),
        ("000000003.ab.entry.tmp", 3),
        ("000000099.json~", None),
        ("000000099.json", None),
        ("000000099.json.partial", None),
        ("x.ab.json", None),
    ],
)
def test_an_attempt_is_known_by_its_name(name: str, number: int | None) -> None:
    assert attempt_number(name) == number


@pytest.mark.parametrize(
    "name",
    ["000000012.json~", "000000012.json.partial", "12.json", ".000000012.json", "000000012", ""],
)
def test_only_the_exact_name_is_an_entry(name: str) -> None:
    assert entry_number(name) is None
    assert entry_number("000000012.json") == 12
    assert segment_number("000000012") == 12
    assert segment_number(f"{name}.x") is None


def test_entries_are_in_folders_of_a_thousand() -> None:
    layout = Layout("r", "s")
    assert layout.entry(1234) == "_flowstream/r/s/log/000000001/000001234.json"
    assert layout.intent(1, "t") == "_flowstream/r/s/pending/000000001.t.json"
