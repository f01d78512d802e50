"""Which numbers and names are valid; errors name the option, the value and what is expected."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flowstream import checks
from flowstream.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (0, False, False),
        (1, True, True),
        (10, True, True),
        (11, False, False),
        (2.5, False, True),
        (True, False, False),
        ("5", False, False),
        (None, False, False),
        (math.nan, False, False),
        (math.inf, False, False),
    ],
)
def test_numbers(value: Any, whole: bool, number: bool) -> None:
    assert checks.is_whole(value, 1, 10) is whole
    assert checks.is_number(value, 1, 10) is number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "expected a string of 1 to 255 bytes"),
        ("é" * 128, "expected a string of 1 to 255 bytes"),
        (5, "expected a string of 1 to 255 bytes"),
        ("\ud800", "expected a string without lone surrogates"),
        ("a\nb", "expected a name without control characters"),
        ("rabbitmq-stream://guest:secret@host", "expected a name, but this is an address"),
    ],
)
def test_names_that_cannot_be(value: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^stream") as caught:
        checks.check_name("stream", value)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "é" * 127, "with space", "name.with-all/signs"])
def test_names_that_can_be(name: str) -> None:
    checks.check_name("stream", name)


def test_a_stream_and_its_virtual_host_fit_into_a_directory_name() -> None:
    most = checks.longest_stream("/")
    checks.check_stream("stream", "x" * most)
    with pytest.raises(ConfigurationError, match=f"expected a name of 1 to {most} bytes"):
        checks.check_stream("stream", "x" * (most + 1))
    assert checks.longest_stream("v" * 10) == most - 9
    assert checks.longest_stream("v" * 300) == 1
