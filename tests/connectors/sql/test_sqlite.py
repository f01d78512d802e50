"""The file of SqliteSink: what is written is in the file that has its name."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from flowstream import Backoff, Halt, Message, Pipeline, SqliteSink
from flowstream.connectors.sql.sqlite import SqliteDatabase
from flowstream.connectors.sql.transaction import Row
from flowstream.errors import Halted, SinkUnavailable
from tests.support.pipelines import MemoryStream

pytestmark = pytest.mark.anyio
COUNT = 50


def pipeline_of(stream: MemoryStream, path: Path, on_message: Callable[[int], None]) -> Pipeline:
    pipeline = Pipeline("file", stream, on_failure=Halt(), max_in_flight=10)

    @pipeline.processor
    def process(message: Message[dict[str, int]]) -> None:
        on_message(message.data["n"])

    sink = SqliteSink(
        path, "rows", columns={"n": int}, create=True, attempts=2, backoff=Backoff(0.01)
    )
    pipeline.sink("rows", sink, size=1)
    return pipeline


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as database:
        return [n for (n,) in database.execute("SELECT n FROM rows ORDER BY n")]


def moved(path: Path, name: str) -> None:
    for end in ("", "-wal", "-shm"):
        if (file := Path(f"{path}{end}")).exists():
            file.rename(path.with_name(name + end))


@pytest.mark.medium
async def test_nothing_is_written_to_a_file_that_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    stream = MemoryStream([b'{"n": %d}' % n for n in range(COUNT)])

    def remove(n: int) -> None:
        if n == 20 and path.exists():
            moved(path, "old.db")

    with anyio.fail_after(30), pytest.raises(Halted, match="no such table"):
        await pipeline_of(stream, path, remove).run()
    stored = stream.stored["orders"]
    assert rows(tmp_path / "old.db") == [*range(stored + 1)]
    moved(tmp_path / "old.db", "rows.db")
    with anyio.fail_after(30):
        await pipeline_of(stream, path, lambda n: None).run()
    assert rows(path) == [*range(COUNT)]


def test_a_folder_that_is_missing_is_what_the_error_names(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "missing" / "rows.db", "rows", columns={"n": int})
    with pytest.raises(SinkUnavailable, match=r"there is no folder '.*missing'; create it first"):
        sink.initialize()


def test_a_file_that_cannot_be_looked_at_is_no_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    path.symlink_to(path)  # as a folder that may not be entered, which root may
    with pytest.raises(SinkUnavailable, match="unable to open database file"):
        SqliteSink(path, "rows", columns={"n": int}).written("file/rows")


@pytest.mark.medium
async def test_a_disk_that_is_full_for_a_while_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.db"
    stream = MemoryStream([b'{"n": %d}' % n for n in range(COUNT)])
    full: list[sqlite3.Error] = []

    class FullAtFirst(SqliteDatabase):
        def insert(self, rows: Sequence[Row], *, apart: bool) -> None:
            if not full:
                ((pages,),) = self.execute("PRAGMA page_count", ())
                self.execute(f"PRAGMA max_page_count = {pages}", ())
                self.execute("CREATE TABLE one_page_more (n)", ())
            super().insert(rows, apart=apart)

        def lost(self, error: BaseException) -> bool:
            if isinstance(error, sqlite3.Error):
                full.append(error)
            return super().lost(error)

    monkeypatch.setattr("flowstream.connectors.sql.sqlite.SqliteDatabase", FullAtFirst)
    with anyio.fail_after(30):
        await pipeline_of(stream, path, lambda n: None).run()
    assert [str(error) for error in full] == ["database or disk is full"]
    assert rows(path) == [*range(COUNT)]


@pytest.mark.medium
async def test_a_file_that_took_the_name_is_written_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a copy that is restored while the pipeline runs."""
    path = tmp_path / "rows.db"
    stream = MemoryStream([b'{"n": %d}' % n for n in range(COUNT)])

    def replace(n: int) -> None:
        if n == 20 and not (tmp_path / "old.db").exists():
            with closing(sqlite3.connect(path)) as database:
                database.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
            moved(path, "old.db")
            moved(tmp_path / "copy.db", "rows.db")

    with anyio.fail_after(30):
        await pipeline_of(stream, path, replace).run()
    found = {*rows(tmp_path / "old.db"), *rows(path)}
    assert found == {*range(COUNT)}
    assert rows(path)[-1] == COUNT - 1
    assert "is not the file that was opened" in caplog.text


@pytest.mark.medium
def test_processes_that_create_the_file_at_the_same_time_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers start together. SQLite refuses to wait, and one of them ended the run."""
    path = tmp_path / "rows.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, other.execute, ["COMMIT"])
    release.start()
    monkeypatch.setattr(os.path, "exists", lambda path: False)  # it looked before
    database = SqliteSink(path, "rows", columns={"n": int}).connect()
    assert database.execute("PRAGMA journal_mode", ()) == [("wal",)]
    database.close()
    release.join()
    other.close()
