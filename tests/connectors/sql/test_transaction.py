"""A batch in one transaction: what is refused is found, whatever breaks leaves all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.connectors.sql.columns import columns_of
from flowstream.connectors.sql.offsets_table import Place
from flowstream.connectors.sql.sqlite import SqliteDatabase
from flowstream.connectors.sql.transaction import finish_record, write_batch
from tests.connectors.sql.faults import ConnectionLost, Faults, FaultySqlite, Killed

COLUMNS = columns_of({"id": int, "name": str})
Kind = Literal["kill", "lose"]


def rows_of(ids: Collection[int], refused: Collection[int] = ()) -> list[tuple[object, ...]]:
    return [(n, None if n in refused else f"name {n}") for n in ids]


def places_of(ids: Collection[int]) -> list[Place | None]:
    return [("s", n, 0) for n in ids]


@given(st.integers(0, 30), st.sets(st.integers(0, 29)))
def test_exactly_the_rows_that_the_database_refuses_are_refused(size: int, bad: set[int]) -> None:
    database = SqliteDatabase(":memory:", "t", COLUMNS, ())
    database.create_tables()
    with closing(database):
        ids = range(size)
        result = write_batch(database, "r", rows_of(ids, bad), places_of(ids), {})
        good = [n for n in ids if n not in bad]
        assert [index for index, _ in result.refused] == [n for n in ids if n in bad]
        assert result.written == good
        assert [n for (n,) in database.execute("SELECT id FROM t ORDER BY id", ())] == good
        again = write_batch(database, "r", rows_of(ids, bad), places_of(ids), {})
        assert again.done == good
        assert again.written == []


def contents(path: Path) -> tuple[list[int], set[int]]:
    """The rows, and the offsets that are done."""
    with closing(sqlite3.connect(path)) as connection:
        rows = [n for (n,) in connection.execute("SELECT id FROM t ORDER BY id")]
        found = connection.execute("SELECT done FROM flowstream_offsets").fetchall()
    done: set[int] = set()
    for part in found[0][0].split(",") if found and found[0][0] else ():
        first, _, last = part.partition("-")
        done.update(range(int(first), int(last or first) + 1))
    return rows, done


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["kill", "lose"])
@pytest.mark.parametrize("refused", [(), (3, 4)])
@pytest.mark.medium
def test_every_point_that_can_break_leaves_all_or_nothing(
    tmp_path: Path, kind: Kind, after: bool, refused: tuple[int, ...]
) -> None:
    broken: list[str] = []
    for at in count():
        path = tmp_path / f"{at}.sqlite3"
        ids = range(6)
        with closing(SqliteDatabase(str(path), "t", COLUMNS, ())) as empty:
            empty.create_tables()
        faults = Faults(at, kind, after)
        database = FaultySqlite(faults, str(path), "t", COLUMNS, ())
        error: Exception | None = None
        try:
            write_batch(database, "r", rows_of(ids, refused), places_of(ids), {})
        except (Killed, ConnectionLost, sqlite3.ProgrammingError) as raised:
            error = raised
        if not faults.broke:
            database.close()
            break
        assert error is not None
        broken.append(faults.effects[at])
        rows, done = contents(path)
        assert rows in ([], [n for n in ids if n not in refused])
        assert set(rows) == done
        with closing(SqliteDatabase(str(path), "t", COLUMNS, ())) as fresh:
            result = write_batch(fresh, "r", rows_of(ids, refused), places_of(ids), {})
        assert [index for index, _ in result.refused] == list(refused)
        good = [n for n in ids if n not in refused]
        assert contents(path) == (good, {*good})
    assert broken.count("commit") == 1
    assert {"begin", "select", "rows", "update"} <= {*broken}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.medium
def test_every_point_that_can_break_closes_all_gaps_or_none(tmp_path: Path, after: bool) -> None:
    broken: list[str] = []
    gaps, closed = {1, 4, 7}, {1, 2, 3, 4, 5, 7}
    for at in count():
        path = tmp_path / f"{at}.sqlite3"
        with closing(SqliteDatabase(str(path), "t", COLUMNS, ())) as empty:
            empty.create_tables()
            write_batch(empty, "r", rows_of(gaps), places_of([*gaps]), {})
        faults = Faults(at, "kill", after)
        database = FaultySqlite(faults, str(path), "t", COLUMNS, ())
        with suppress(Killed, sqlite3.ProgrammingError):
            finish_record(database, "r", {"s": range(1, 6), "other": range(9)})
        if not faults.broke:
            database.close()
            assert contents(path) == ([*gaps], closed)
            break
        broken.append(faults.effects[at])
        rows, done = contents(path)
        assert rows == [*gaps]
        assert done in (gaps, closed)
    assert {"begin", "select", "update", "commit"} == {*broken}


def test_two_that_write_the_same_write_it_once(tmp_path: Path) -> None:
    """A process that should be dead still writes: whoever comes second sees what is done."""
    path = str(tmp_path / "t.sqlite3")
    first, second = (SqliteDatabase(path, "t", COLUMNS, ()) for _ in range(2))
    with closing(first), closing(second):
        first.create_tables()
        write_batch(first, "r", rows_of(range(5)), places_of(range(5)), {})
        result = write_batch(second, "r", rows_of(range(3, 8)), places_of(range(3, 8)), {})
    assert result.done == [0, 1]
    assert contents(tmp_path / "t.sqlite3") == (list(range(8)), set(range(8)))
