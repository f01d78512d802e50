"""Files are cut into the same bodies wherever a read ends, and every mistake names its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli import records
from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.records import Format, Source, guess_format


def bodies(path: Path, format: Format | None = None) -> list[bytes]:
    with Source(str(path), format) as source:
        return [body for slice_ in source.slices() for body in slice_]


class Trickle:
    """A file that gives at most `size` bytes a read."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read1(self, _: int) -> bytes:
        return self._file.read(self._size)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.ndjson", Format.NDJSON),
        ("a.jsonl.gz", Format.NDJSON),
        ("a.CSV", Format.CSV),
        ("a.txt", Format.LINES),
        ("-", Format.LINES),
    ],
)
def test_the_format_is_guessed_from_the_extension(name: str, format: Format) -> None:
    assert guess_format(name) is format


def test_an_unknown_extension_asks_for_the_format() -> None:
    with pytest.raises(CommandError, match="--format ndjson") as caught:
        guess_format("orders.parquet")
    assert caught.value.exit_code is ExitCode.INPUT


def test_ndjson_lines_are_kept_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"a": 1}\r\n\n  {"b":"\xc3\xa9"}\n[3]')
    assert bodies(path) == [b'{"a": 1}', b'{"b":"\xc3\xa9"}', b"[3]"]


def test_csv_records_become_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffid,text\r\n1,"a ""b"", c\r\nd"\r\n\r\n2,é\r\n'.encode())
    assert [json.loads(body) for body in bodies(path)] == [
        {"id": "1", "text": 'a "b", c\r\nd'},
        {"id": "2", "text": "é"},
    ]


def test_gzip_is_read_transparently(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert bodies(path) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.ndjson", b'{"a":1}\n{"a":\n', "line 2 is not JSON"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "record 3 has 3 values, and the header names 2"),
        ("a.csv", b"a,a\n1,2\n", "names a column twice"),
        ("a.csv", b'a,b\n1,"2\n', "record 2 is not CSV"),
        ("a.csv", b"a,b\n1,\xff\n", "is not UTF-8"),
        ("a.txt.gz", b"plain text", "is damaged or not gzip"),
        ("a.txt.gz", gzip.compress(b"x" * 9999, mtime=0)[:-12], "is damaged or not gzip"),
    ],
)
def test_a_file_that_is_not_what_it_says(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CommandError, match=expected) as caught:
        bodies(path)
    assert caught.value.exit_code is ExitCode.INPUT


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CommandError, match=r"cannot read gone\.csv: No such file"):
        Source("gone.csv")


def test_progress_ends_at_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"line\n" * 1000)
    with Source(str(path)) as source:
        assert sum(map(len, source.slices())) == 1000
        assert source.position == source.size == 5000


def test_stop_calls_off_a_read_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to does not hold up the end."""
    import os

    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb", buffering=0) as writer:
        stdin = io.TextIOWrapper(pipe)
        monkeypatch.setattr("sys.stdin", stdin)
        with Source("-") as source:
            slices = source.slices()
            writer.write(b"one\ntw")
            assert next(slices) == [b"one"]
            threading.Timer(0.01, source.stop).start()
            assert list(slices) == []
        stdin.detach()


lines = st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8")))


@given(lines, st.integers(1, 50))
def test_lines_do_not_depend_on_where_reads_end(texts: list[str], size: int) -> None:
    data = "\n".join(texts).encode()
    found = [b for s in records._lines(Trickle(data, size), "f") for b in s]
    assert found == [text.encode() for text in texts if text]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(st.lists(st.tuples(cells, cells), max_size=20), st.integers(1, 50))
def test_csv_does_not_depend_on_where_reads_end(rows: list[tuple[str, str]], size: int) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([("first", "second"), *rows])
    found = [
        json.loads(body)
        for slice_ in records._csv(Trickle(text.getvalue().encode(), size), "f")
        for body in slice_
    ]
    assert found == [{"first": a, "second": b} for a, b in rows]
