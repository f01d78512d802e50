"""What one message holds keeps no other message out of a file."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from pydantic import BaseModel

from flowstream.connectors.files.formats import Encoded, Rows, ndjson, parquet


class Order(BaseModel):
    id: int
    name: str | None = None


def lines(encoded: Encoded) -> list[Any]:
    assert encoded.content.endswith(b"\n") or not encoded.content
    return [json.loads(line) for line in encoded.content.splitlines()]


def test_a_line_of_json_for_each_row() -> None:
    data = [b'{"a":\n1,\r\n"b":"x\\ny"}', Order(id=1), {"n": None}, "text\n", b" 7 ", [1]]
    found = ndjson(Rows(data, None))
    expected = [{"a": 1, "b": "x\ny"}, {"id": 1, "name": None}, {"n": None}, "text\n", 7, [1]]
    assert lines(found) == expected
    assert found.errors == {}


def test_what_is_no_json_is_left_out_by_itself() -> None:
    bad: list[Any] = [
        b"{",
        b'{"a":1}\n{"a":2}',
        b"NaN",
        b"",
        b"\xff",
        {"x": float("inf")},
        object(),
    ]
    found = ndjson(Rows([{"ok": 1}, *bad, {"ok": 2}], None))
    assert lines(found) == [{"ok": 1}, {"ok": 2}]
    assert [*found.errors] == [1, 2, 3, 4, 5, 6, 7]


def test_lines_say_where_they_come_from() -> None:
    places = [('s"x', 1), ("s", 2), ("s", 3)]
    found = ndjson(Rows([{"a": 1}, b"{ }", b"[1]"], places))
    assert lines(found) == [
        {"_stream": 's"x', "_offset": 1, "a": 1},
        {"_stream": "s", "_offset": 2},
    ]
    assert [*found.errors] == [2]
    assert "cannot be added" in str(found.errors[2])


pq: Any = None


@pytest.fixture
def needs_pyarrow() -> Any:
    global pq
    reason = "pyarrow is not installed: the extra parquet"
    pq = pytest.importorskip("pyarrow.parquet", reason=reason)


def table(encoded: Encoded) -> Any:
    return pq.read_table(io.BytesIO(encoded.content))


@pytest.mark.medium
@pytest.mark.usefixtures("needs_pyarrow")
def test_parquet_leaves_out_what_is_no_row_by_itself() -> None:
    bad = [b"[1]", b"{", b'{"id":1}{"id":2}']
    found = parquet(Order)(Rows([b'{"id":1}', *bad, b'{"id":2,"name":"x"}', b'{"id":"no"}'], None))
    assert table(found).to_pylist() == [{"id": 1, "name": None}, {"id": 2, "name": "x"}]
    assert [*found.errors] == [1, 2, 3, 5]
    assert parquet(None)(Rows([b"{"], [("s", 1)])).errors.keys() == {0}


@pytest.mark.usefixtures("needs_pyarrow")
def test_parquet_has_no_column_for_what_the_folder_tells() -> None:
    data = [Order(id=1, name="a"), Order(id=2, name="a")]
    found = parquet(None)(Rows(data, [("s", 5), ("s", 6)], ["name"]))
    assert table(found).to_pylist() == [
        {"id": 1, "_stream": "s", "_offset": 5},
        {"id": 2, "_stream": "s", "_offset": 6},
    ]


@pytest.mark.usefixtures("needs_pyarrow")
def test_columns_of_several_types_need_a_schema() -> None:
    with pytest.raises(TypeError, match=r"FileSink\(schema=\.\.\.\)"):
        parquet(None)(Rows([{"a": 1}, {"a": "x"}], None))
