"""Fields are read as they were written; a length or count that lies is refused before it counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol import OffsetKind, OffsetSpec
from flowstream.protocol import wire as w

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FIELDS: dict[str, tuple[w.Field, st.SearchStrategy[Any]]] = {
    "bool": (w.BOOL, st.booleans()),
    "string": (w.STRING, text),
    "reference": (w.REFERENCE, st.none() | text.filter(bool)),
    "bytes": (w.BYTES, st.none() | st.binary(max_size=40)),
    "strings": (w.STRINGS, st.lists(text, max_size=5).map(tuple)),
    "map": (w.MAP, st.dictionaries(text, text, max_size=5)),
    "optional map": (w.OPTIONAL_MAP, st.dictionaries(text, text, max_size=5)),
    "statistics": (w.STATISTICS, st.dictionaries(text, st.integers(-(1 << 63), (1 << 63) - 1))),
    "offset": (
        w.OFFSET,
        st.sampled_from([OffsetSpec.first(), OffsetSpec.last(), OffsetSpec.next()])
        | st.integers(0, (1 << 64) - 1).map(OffsetSpec.offset)
        | st.integers(-(1 << 63), (1 << 63) - 1).map(OffsetSpec.timestamp),
    ),
}


def written(field: w.Field, value: Any) -> bytes:
    out: w.Out = []
    field.write(out, value)
    return b"".join(out)


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data())
def test_a_field_is_read_as_it_was_written(name: str, data: st.DataObject) -> None:
    field, values = FIELDS[name]
    value = data.draw(values)
    raw = written(field, value)
    assert len(raw) >= field.size
    reader = w.Reader(memoryview(raw))
    assert field.read(reader) == value
    assert reader.remaining == 0


@pytest.mark.parametrize("name", FIELDS)
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_protocol_error(name: str, raw: bytes) -> None:
    reader = w.Reader(raw)
    try:
        FIELDS[name][0].read(reader)
    except ProtocolError:
        return
    assert 0 <= reader.remaining <= len(raw)


@pytest.mark.parametrize("raw", ["7fffffff", "80000000", "00000002 0001 61"])
def test_a_count_is_compared_with_the_bytes_that_are_left(raw: str) -> None:
    with pytest.raises(ProtocolError, match="items cannot fit into the frame"):
        w.STRINGS.read(w.Reader(bytes.fromhex(raw)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (w.U16, 1 << 16),
        (w.U32, -1),
        (w.STRING, "x" * 32_768),
        (w.STRING, "\ud800"),
        (w.OFFSET, OffsetSpec(OffsetKind.OFFSET, -1)),
    ],
)
def test_what_the_wire_cannot_carry_is_refused(field: w.Field, value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        written(field, value)


def test_no_offset_type_is_made_up() -> None:
    with pytest.raises(ProtocolError, match="there is no offset type 9"):
        w.OFFSET.read(w.Reader(b"\0\x09"))
    assert w.LAST_OFFSET.read(w.Reader(b"\0\x01" + bytes(8))) == OffsetSpec.first()
