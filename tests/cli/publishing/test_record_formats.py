"""NDJSON and CSV are cut into the same bodies wherever a read ends."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.exit_codes import CommandError
from flowstream.cli.publishing.record_formats import (
    READERS,
    InputError,
    InputOptions,
    Slice,
    batches,
)
from flowstream.cli.publishing.records import Format, Source

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


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize(
    ("format", "data", "expected"),
    [
        ("lines", b"one\r\ntwo", [b"one", b"two"]),
        ("ndjson", b'{"a":1}\n\n2\n', [b'{"a":1}', b"2"]),
        ("csv", b"a\n1\n", [b'{"a":"1"}']),
    ],
)
def test_a_byte_order_mark_is_left_out(
    format: str, data: bytes, expected: list[bytes], size: int
) -> None:
    found, error = cut(format, b"\xef\xbb\xbf" + data, size)
    assert (found.bodies, error) == (expected, None)


def test_numbers_of_any_size_are_json() -> None:
    numbers = b"1" * 5_000 + b"\n1e400\n-0.10"
    assert cut("ndjson", numbers)[0].bodies == numbers.split(b"\n")


def test_every_body_has_the_line_on_which_it_begins() -> None:
    assert cut("lines", b"a\n\nb\n")[0].lines == [1, 3]
    assert cut("ndjson", b"\n1\n\n2")[0].lines == [2, 4]
    assert cut("csv", b'a,b\n1,"x\ny"\n\n2,z\n')[0].lines == [2, 5]


def test_a_cell_may_be_larger_than_the_csv_module_allows_by_itself() -> None:
    cell = "x" * 500_000
    found, error = cut("csv", f'a,b\n1,"{cell}\n{cell}"\n'.encode())
    assert error is None
    assert json.loads(found.bodies[0]) == {"a": "1", "b": f"{cell}\n{cell}"}


def test_a_quote_within_a_cell_is_a_character() -> None:
    found, _ = cut("csv", b'size,n\n5" pipe,1\n6" pipe,2\n7",3\n')
    assert [json.loads(body)["size"] for body in found.bodies] == ['5" pipe', '6" pipe', '7"']


def test_a_quote_that_is_not_closed_is_named_where_it_opens_and_holds_no_more_than_a_frame() -> (
    None
):
    class Endless(Trickle):
        """Standard input that never ends."""

        def read1(self, size: int) -> bytes:
            return super().read1(size) or b"4,5\n" * 1000

    wanted = InputOptions("f", FRAME)
    data = b'a,b\n1,2\n"x\ny","2\n'
    slices = READERS["csv"](batches(Endless(data, 4), wanted), wanted)
    assert next(part for part in slices if part.bodies).bodies == [b'{"a":"1","b":"2"}']
    with pytest.raises(InputError, match="line 4 has a quote that opens a cell") as caught:
        assert not any(slices)
    assert caught.value.line == 3  # where to go on: the whole record


lines = st.lists(st.text(st.characters(exclude_characters="\n\r\0\ufeff", codec="utf-8")))


@given(lines, st.integers(1, 50))
def test_lines_do_not_depend_on_where_reads_end(texts: list[str], size: int) -> None:
    data = "\n".join(texts).encode()
    found, error = cut("lines", data, size)
    numbered = [(number, text.encode()) for number, text in enumerate(texts, 1) if text]
    assert error is None
    assert list(zip(found.lines, found.bodies, strict=True)) == numbered


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(st.lists(st.tuples(cells, cells), max_size=20), st.integers(1, 50))
def test_csv_does_not_depend_on_where_reads_end(rows: list[tuple[str, str]], size: int) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([("first", "second"), *rows])
    found, error = cut("csv", text.getvalue().encode(), size)
    assert error is None
    assert list(map(json.loads, found.bodies)) == [{"first": a, "second": b} for a, b in rows]
