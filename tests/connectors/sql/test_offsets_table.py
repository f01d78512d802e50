"""What is done is stored as ranges, and a claim gives every message to one transaction only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.connectors.done_ranges import DoneRanges
from flowstream.connectors.sql.offsets_table import (
    CREATE,
    SQLITE,
    Claim,
    OffsetsTable,
    Place,
    parsed,
    parsed_marks,
    written,
    written_marks,
)
from flowstream.errors import StreamReplaced

RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda it: (it[0], it[0] + it[1]))
)
OFFSETS = st.lists(st.integers(0, 40), max_size=12)


@given(RANGES)
def test_ranges_are_read_as_they_were_written(ranges: list[tuple[int, int]]) -> None:
    done = DoneRanges(ranges)
    assert parsed(written(done)) == list(done)


def test_ranges_are_written_for_people() -> None:
    assert written([(0, 1041), (1043, 1043)]) == "0-1041,1043"
    assert parsed("") == []


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 1 << 50))))
def test_marks_are_read_as_they_were_written(marks: list[tuple[int, int]]) -> None:
    assert parsed_marks(written_marks(marks)) == marks


def opened() -> tuple[sqlite3.Connection, OffsetsTable]:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(CREATE)

    def execute(text: str, values: Sequence[Any]) -> list[Any]:
        return connection.execute(text, values).fetchall()

    return connection, OffsetsTable(execute, SQLITE)


@pytest.fixture
def table() -> Iterator[OffsetsTable]:
    connection, table = opened()
    with closing(connection):
        yield table


def places(stream: str, offsets: Sequence[int], timestamp: int = 0) -> list[Place | None]:
    return [(stream, offset, timestamp) for offset in offsets]


@given(st.lists(st.tuples(OFFSETS, OFFSETS, st.booleans()), max_size=8))
def test_each_message_is_claimed_once_by_what_commits(
    batches: list[tuple[list[int], list[int], bool]],
) -> None:
    """Of any batches in any order, some of which are rolled back."""
    connection, table = opened()
    model: dict[str, set[int]] = {"a": set(), "b": set()}
    with closing(connection):
        for a, b, commits in batches:
            connection.execute("BEGIN")
            where = [*places("a", a), *places("b", b)]
            claim = Claim(table, "reference", where)
            fresh = [where[index] for index in claim.fresh]
            expected = [("a", n, 0) for n in dict.fromkeys(a) if n not in model["a"]]
            expected += [("b", n, 0) for n in dict.fromkeys(b) if n not in model["b"]]
            assert fresh == expected
            assert sorted(claim.fresh + claim.done) == list(range(len(where)))
            claim.store(claim.fresh, {})
            connection.execute("COMMIT" if commits else "ROLLBACK")
            if commits:
                model["a"].update(a)
                model["b"].update(b)
        for stream, offsets in model.items():
            found = table.list("reference").get(stream, DoneRanges())
            assert {n for n in range(60) if n in found} == offsets


def test_references_do_not_see_each_other(table: OffsetsTable) -> None:
    claim = Claim(table, "one", places("s", [1]))
    claim.store(claim.fresh, {})
    assert Claim(table, "two", places("s", [1])).fresh == [0]
    assert Claim(table, "one", places("t", [1])).fresh == [0]
    assert Claim(table, "one", places("s", [1])).fresh == []


def test_what_is_settled_closes_gaps_up_to_what_is_written(table: OffsetsTable) -> None:
    claim = Claim(table, "r", places("s", [12, 20]))
    claim.store(claim.fresh, {"s": range(10, 16)})
    assert list(table.list("r")["s"]) == [(10, 15), (20, 20)]
    claim = Claim(table, "r", places("s", [17]))
    claim.store(claim.fresh, {"s": range(10, 40)})
    # What is settled behind the written ones may have other times than those: it is not counted.
    assert list(table.list("r")["s"]) == [(10, 17), (20, 20)]


def test_a_message_without_a_place_is_always_fresh(table: OffsetsTable) -> None:
    for fresh in ([0, 1], [0]):
        claim = Claim(table, "r", [None, ("s", 1, 0)])
        assert claim.fresh == fresh
        claim.store(claim.fresh, {})


def test_a_newer_message_at_a_done_offset_is_of_another_stream(table: OffsetsTable) -> None:
    claim = Claim(table, "r", places("s", [0, 1], timestamp=1000))
    claim.store(claim.fresh, {})
    assert Claim(table, "r", places("s", [0, 1], timestamp=1000)).fresh == []
    with pytest.raises(StreamReplaced, match=r"s@0 is newer .* DELETE FROM flowstream_offsets"):
        Claim(table, "r", places("s", [0], timestamp=1001))
    table.forget("r", "s")
    assert Claim(table, "r", places("s", [0], timestamp=1001)).fresh == [0]


def test_a_stream_that_was_created_again_is_noticed_after_its_later_messages_are_written(
    table: OffsetsTable,
) -> None:
    for first, timestamp in ((0, 1000), (4, 3000), (2, 3000)):  # of the old stream, and the new one
        claim = Claim(table, "r", places("s", [first, first + 1], timestamp=timestamp))
        claim.store(claim.fresh, {"s": range(0)})
    with pytest.raises(StreamReplaced, match="s@0 is newer"):
        Claim(table, "r", places("s", [0, 1], timestamp=2000))


def test_a_clock_that_goes_back_is_not_another_stream(table: OffsetsTable) -> None:
    """When two workers write messages from before (0 to 4) and after it went back."""
    times = [2000] * 5 + [1000] * 5
    for batch in ([4, 8], [0, 1, 2, 3], [5, 6, 7], [9]):
        claim = Claim(table, "r", [("s", offset, times[offset]) for offset in batch])
        claim.store(claim.fresh, {"s": range(0)})
    again = Claim(table, "r", [("s", offset, time) for offset, time in enumerate(times)])
    assert again.fresh == []


def test_without_times_nothing_is_concluded(table: OffsetsTable) -> None:
    claim = Claim(table, "r", places("s", [0], timestamp=0))
    claim.store(claim.fresh, {})
    assert Claim(table, "r", places("s", [0], timestamp=1001)).done == [0]
