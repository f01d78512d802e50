"""A filter names what is wanted, and refuses values that select nothing."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream import Filter
from flowstream.errors import ConfigurationError


def wanted(body: bytes) -> bool:
    return body == b"a"


def test_a_consumer_gets_its_options() -> None:
    found = Filter(("eu", "us"), wanted, unfiltered=True).options
    assert found == {"filter_values": ("eu", "us"), "match": wanted, "match_unfiltered": True}
    assert not Filter(("eu",), wanted).options["match_unfiltered"]


@pytest.mark.parametrize(
    ("values", "match", "says"),
    [
        ("eu", wanted, "values"),
        ((), wanted, "values"),
        ((5,), wanted, "values"),
        (("x" * 40_000,), wanted, "values"),
        (("eu",), "eu", "match"),
        (("eu",), None, "match"),
    ],
)
def test_what_cannot_filter_is_refused(values: Any, match: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Filter > {says}"):
        Filter(values, match)
