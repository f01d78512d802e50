"""The store on disk: what was committed is there again, and other files are left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flowstream.broker.records import (
    AddChunk,
    AddStream,
    AddSuperStream,
    DropOffset,
    DropSequence,
    DropStream,
    DropSuperStream,
    SaveOffset,
    SaveSegment,
    SaveSequence,
    Segment,
    StoredChunk,
    Truncate,
)
from flowstream.broker.sqlite import SqliteStore
from flowstream.errors import ConfigurationError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def test_everything_is_there_after_opening_again(path: Path) -> None:
    chunk = StoredChunk(0, 3, 5, frozenset({"x"}), b"blob")
    segment = Segment(0, 3, 4, 1, 5)
    with closing(SqliteStore(path)) as store:
        store.commit(
            [
                AddStream(1, "kept", {"max-age": "1D"}),
                AddStream(2, "dropped", {}),
                AddChunk(1, chunk),
                SaveSegment(1, segment),
                SaveOffset(1, "r", 2**64 - 1),
                SaveOffset(1, "gone", 1),
                DropOffset(1, "gone"),
                SaveSequence(1, "p", 2**63),
                SaveSequence(1, "gone", 1),
                DropSequence(1, "gone"),
                DropStream(2),
                AddSuperStream("super", (("kept", "k"),)),
                AddSuperStream("other", ()),
                DropSuperStream("other"),
            ]
        )
    with closing(SqliteStore(path)) as store:
        contents = store.load()
        (record,) = contents.streams
        assert (record.key, record.name, record.arguments) == (1, "kept", {"max-age": "1D"})
        assert record.last_chunk_id == 0
        assert record.segments == [segment]
        assert record.offsets == {"r": 2**64 - 1}
        assert record.sequences == {"p": 2**63}
        assert contents.super_streams == {"super": [("kept", "k")]}
        assert contents.next_key == 3
        assert store.read(1, 0, 10, None, 1) == ([chunk], 3)


def test_a_group_is_applied_whole_or_not_at_all(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.commit([AddStream(1, "same", {}), AddStream(2, "same", {})])
        assert store.load().streams == []


def test_garbage_is_freed_in_steps_and_after_opening_again(path: Path) -> None:
    chunks = [StoredChunk(at, 1, at, None, b"x") for at in range(200)]
    with closing(SqliteStore(path)) as store:
        store.commit([AddStream(1, "one", {}), *(AddChunk(1, chunk) for chunk in chunks)])
        store.commit([Truncate(1, 150)])
        assert store.collect()
    with closing(SqliteStore(path)) as store:
        steps = 0
        while store.collect():
            steps += 1
        assert steps >= 2
        assert store.locate(1, 0) == 150
        store.commit([DropStream(1)])
        while store.collect():
            pass
        assert store.locate(1, 0) is None


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_not_a_database_is_refused(path: Path) -> None:
    path.write_bytes(b"this is no database, and it is long enough to be looked at " * 100)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqliteStore(path)


def test_a_store_of_a_later_layout_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="layout 99"):
        SqliteStore(path)


def test_a_path_that_cannot_be_opened_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqliteStore(path)


def test_a_damaged_store_is_refused(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.commit([AddStream(each, f"stream {each}", {}) for each in range(1, 2000)])
    data = bytearray(path.read_bytes())
    for page in range(16384, len(data), 16384):
        data[page : page + 4000] = b"\xff" * 4000
    path.write_bytes(data)
    with (
        closing(SqliteStore(path)) as store,
        pytest.raises(ConfigurationError, match="choose another data directory"),
    ):
        store.load()


def test_a_store_with_impossible_values_is_refused(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.commit([AddStream(1, "s", {})])
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE stream SET arguments = 'not JSON'")
        other.commit()
    with (
        closing(SqliteStore(path)) as store,
        pytest.raises(ConfigurationError, match="cannot be opened"),
    ):
        store.load()
