"""The folder of a message comes from its data, or from a function of the user's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flowstream.connectors.files.partitions import folder_by, values_of
from flowstream.pipeline import Message


def test_a_field_of_a_dict_or_an_object() -> None:
    assert values_of("day", {"day": 1, "x": 2}) == {"day": 1}
    assert values_of("day", SimpleNamespace(day=None)) == {"day": None}


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        ({"x": 1}, LookupError, "partition_by='day': the data has no field of this name"),
        (b"{}", TypeError, "annotate the handler"),
        ("{}", TypeError, "use a function as partition_by"),
        (SimpleNamespace(), AttributeError, "day"),
    ],
)
def test_data_without_the_field_is_refused(data: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        values_of("day", data)


def test_a_function_gives_names_and_values() -> None:
    message = Message.new({"day": "mon"}, offset=7)
    by = folder_by(lambda it: {"day": it.data["day"], "block": it.offset // 5}, message)
    assert by == "day=mon/block=1"
    with pytest.raises(TypeError, match="partition_by returned a str: expected a dict"):
        folder_by(lambda it: "mon", message)  # type: ignore[arg-type, return-value]
