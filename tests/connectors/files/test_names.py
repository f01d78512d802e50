"""Names from messages and brokers lead nowhere else, hide nothing, and fit into a file system."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.connectors.files.names import LONGEST, NULL, data_name, folder_of, log_folder, safe

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255)


@given(NAMES)
def test_a_safe_name_is_one_visible_name(name: str) -> None:
    found = safe(name)
    assert PurePosixPath(found).parts == (found,)
    assert found not in {".", ".."}
    assert found[0] not in "._"
    assert found.isascii()
    assert len(found) <= LONGEST + 25


@given(st.lists(NAMES, unique=True, min_size=2, max_size=2))
def test_two_names_are_never_one(names: list[str]) -> None:
    one, other = names
    assert safe(one) != safe(other)
    assert safe("x" * 200 + one) != safe("x" * 200 + other)


def test_a_shortened_name_is_not_the_name_of_another() -> None:
    assert safe(safe("x" * 255)) != safe("x" * 255)


@given(NAMES)
def test_a_partition_value_is_read_back(value: str) -> None:
    try:
        folder = folder_of({"key": value})
    except ValueError:
        return
    name, _, found = folder.partition("=")
    assert (name, unquote(found)) == ("key", value)
    assert PurePosixPath(folder).parts == (folder,)
    assert found not in {".", ".."}
    assert len(folder) < 255


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("values", "folder"),
    [
        ({"day": date(2026, 11, 29), "region": "eu"}, "day=2026-11-29/region=eu"),
        ({"at": datetime(2026, 1, 2, 3, tzinfo=UTC)}, "at=2026-01-02T03%3A00%3A00%2B00%3A00"),
        ({"n": 7, "b": True}, "n=7/b=true"),
        ({"none": None}, f"none={NULL}"),
        ({"text": NULL}, f"text=%5F{NULL[1:]}"),
        ({"id": UUID(int=1)}, "id=00000000-0000-0000-0000-000000000001"),
        ({"up": "../../etc/passwd"}, "up=..%2F..%2Fetc%2Fpasswd"),
        ({"dots": ".."}, "dots=%2E%2E"),
        ({"../x": "y"}, "%2E.%2Fx=y"),
        ({"_hidden": "y"}, "%5Fhidden=y"),
        ({}, ""),
    ],
)
def test_folders_are_those_of_hive(values: dict[str, Any], folder: str) -> None:
    assert folder_of(values) == folder


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"x": ""}, "is an empty string"),
        ({"x": "y" * 201}, "has 201 bytes"),
        ({"x": 1.5}, "is a float"),
        ({"x": ["y"]}, "is a list"),
        ({"x": Colour.RED}, "is a Colour"),
        ({"": "y"}, "is not the name of a partition"),
        ({1: "y"}, "1 is not the name of a partition"),
        ({"k" * 101: "y"}, "is not the name of a partition"),
    ],
)
def test_values_that_name_no_folder_are_refused(values: dict[Any, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        folder_of(values)


def test_a_data_file_is_named_for_its_stream_and_offsets() -> None:
    name = data_name("a/b", (5, 17), "000000003-token", "parquet")
    assert name == "a%2Fb-000000000005-000000000017-000000003-token.parquet"
    assert log_folder("..", "s") == "_flowstream/%2E./s"
