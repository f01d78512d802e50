"""Files are cut into the same bodies wherever a read ends, and every mistake names its line."""

from __future__ import annotations

import gzip
import io
import threading
from pathlib import Path

import pytest
from hypothesis import strategies as st

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.publishing.record_formats import (
    READERS,
    InputError,
    InputOptions,
    Slice,
    batches,
)
from flowstream.cli.publishing.records import Format, Source, guess_format

FRAME = 1_048_576


def bodies(path: Path, format: Format | None = None) -> list[bytes]:
    with Source(str(path), format) as source:
        return [body for slice_ in source.slices() for body in slice_.bodies]


def cut(
    format: str, data: bytes, size: int = 1 << 16, *, first: int = 1, key: str | None = None
) -> tuple[Slice, CommandError | None]:
    """Everything that is read before the end or the mistake, and the mistake."""
    wanted = InputOptions("f", FRAME, first, key)
    found = Slice()
    try:
        for part in READERS[format](batches(Trickle(data, size), wanted), wanted):
            found.bodies += part.bodies
            found.lines += part.lines
            found.keys += part.keys
    except CommandError as error:
        return found, error
    return found, None


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
        ("A.CSV.GZ", Format.CSV),
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


@pytest.mark.parametrize("name", ["a.txt.gz", "A.TXT.GZ"])
def test_gzip_is_read_transparently(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert bodies(path) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.ndjson", b'{"a":1}\n{"a":\n', "line 2 is not JSON"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, and the header has 2 columns"),
        ("a.csv", b"a,b\n1,2\n1\n", "line 3 has 1 cells"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1 is the header and has the column 'a' twice"),
        ("a.csv", b"", "is empty, and CSV needs a header"),
        ("a.csv", b"\n\n", "is empty, and CSV needs a header"),
        ("a.csv", b'a,b\n1,"2\n', "line 2 has a quote that opens a cell and is not closed"),
        ("a.csv", b'a,b\n"1"x,2\n', "line 2 is not CSV: ',' expected after"),
        ("a.csv", b'a,b\n1,"2\n3"x,4\n', r"line 3 is not CSV: .* begins on line 2"),
        ("a.csv", b"a,b\n1,\xff\n", "line 2 is not UTF-8 .byte 0xff at column 3."),
        ("a.ndjson", b'{"a":1}\n"\xe9"\n', "line 2 is not UTF-8 .byte 0xe9 at column 2."),
        ("a.ndjson", b"1\nNaN\n", "line 2 is not JSON: JSON has no NaN"),
        ("a.ndjson", b'{"a":[-Infinity]}', "line 1 is not JSON: JSON has no -Infinity"),
        ("a.ndjson", b"[" * 500_000 + b"]" * 500_000, "line 1 is nested too deeply"),
        ("a.ndjson", b"[" * 500_000, "line 1 is nested too deeply"),
        ("a.ndjson", b"\x0c{}", "line 1 is not JSON"),
        ("a.ndjson", b"{}\n\xef\xbb\xbf{}\n", "line 2 begins with a byte order mark"),
        ("a.csv", b"a,b\r1,2\r", "line 1 is not CSV: a carriage return outside of quotes"),
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
            assert next(slices).bodies == [b"one"]
            threading.Timer(0.01, source.stop).start()
            assert list(slices) == []
        stdin.detach()


@pytest.mark.parametrize("format", [*Format])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("text", ['{"a":1}\n{"a":2}\n', "a\n1\n", "漢字,b\n漢字,1\n"])
def test_utf_16_is_refused_with_the_way_out(format: Format, encoding: str, text: str) -> None:
    found, error = cut(format, text.encode(encoding))
    assert found.bodies == []
    assert "looks like UTF-16" in str(error)
    assert "iconv -f UTF-16 -t UTF-8" in str(error)


@pytest.mark.parametrize("size", [3, 1 << 16])
def test_everything_before_a_mistake_is_handed_on(size: int) -> None:
    found, error = cut("ndjson", b"1\n2\n\nno\n3\n", size)
    assert isinstance(error, InputError)
    assert (found.bodies, found.lines, error.line) == ([b"1", b"2"], [1, 2], 4)
    found, error = cut("csv", b'a,b\n1,2\n"3\n3",4,5\n', size)
    assert isinstance(error, InputError)
    assert (found.lines, error.line) == ([2], 3)
    found, error = cut("csv", b"a\n1\n2\n\xff\n", size)
    assert isinstance(error, InputError)
    assert (found.lines, error.line) == ([2, 3], 4)


@pytest.mark.parametrize("size", [5, 1 << 16])
def test_reading_begins_with_the_line_asked_for(size: int) -> None:
    assert cut("lines", b"a\nb\nc", size, first=2)[0].bodies == [b"b", b"c"]
    assert cut("ndjson", b"no\n1\n2", size, first=2)[0].lines == [2, 3]
    text = b'a,b\nwrong\n1,"x\ny"\n2,z\n'
    assert cut("csv", text, size, first=3)[0].lines == [3, 5]
    assert cut("csv", text, size, first=4)[0].bodies == [b'{"a":"2","b":"z"}']
    assert cut("lines", b"a\nb\n", size, first=9)[0].bodies == []


def test_a_record_that_trickles_in_holds_up_none_before_it() -> None:
    wanted = InputOptions("f", FRAME)
    slices = READERS["csv"](batches(Trickle(b'a\n1\n"2\n3"\n', 7), wanted), wanted)
    assert [part.bodies for part in slices] == [[b'{"a":"1"}'], [b'{"a":"2\\n3"}']]


def test_a_line_longer_than_any_message_is_named() -> None:
    found, error = cut("lines", b"a\n" + b"x" * (FRAME + 1) + b"\nb\n")
    assert found.bodies == [b"a"]
    assert "line 2 is longer than 1,048,576 bytes" in str(error)


def test_keys_are_the_text_of_a_field() -> None:
    found, error = cut("ndjson", b'{"k":"a"}\n{"k":42}\n{"k":1.50}\n', key="k")
    assert (found.keys, error) == (["a", "42", "1.50"], None)
    found, error = cut("csv", b"k,v\na,1\n,2\n", key="k")
    assert (found.keys, error) == (["a", ""], None)


@pytest.mark.parametrize(
    ("format", "data", "expected"),
    [
        ("ndjson", b'{"k":"a"}\n{"v":1}\n', "line 2 has no field 'k' for --key"),
        ("ndjson", b'{"k":null}', "line 1 has null in the field 'k'"),
        ("ndjson", b'{"k":true}', "line 1 has a boolean in the field 'k'"),
        ("ndjson", b'{"k":{}}', "line 1 has an object in the field 'k'"),
        ("ndjson", b'{"k":"\\ud800"}', "line 1 has half a surrogate pair"),
        ("ndjson", b"[1]", "line 1 is not a JSON object"),
        ("csv", b"a,b\n1,2\n", "line 1 is the header and has no column 'k'"),
    ],
)
def test_a_message_without_its_key_is_named(format: str, data: bytes, expected: str) -> None:
    assert expected in str(cut(format, data, key="k")[1])


lines = st.lists(st.text(st.characters(exclude_characters="\n\r\0\ufeff", codec="utf-8")))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
