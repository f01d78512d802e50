"""Sizes and times as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.values import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "value"),
    [("500", 500), ("100MB", 100_000_000), ("2 GiB", 2 << 30), ("3k", 3000), ("1TB", 10**12)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size("--max-bytes", text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", timedelta(seconds=30)), ("12h", timedelta(hours=12)), ("2W", timedelta(weeks=2))],
)
def test_times(text: str, value: timedelta) -> None:
    assert parse_duration("--max-age", text) == value


@pytest.mark.parametrize("text", ["", "big", "1.5GB", "-3", "5XB"])
def test_no_size_names_the_option(text: str) -> None:
    with pytest.raises(CommandError, match="--max-bytes") as caught:
        parse_size("--max-bytes", text)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("text", ["", "soon", "7", "7y", "1d12h"])
def test_no_time_names_the_option(text: str) -> None:
    with pytest.raises(CommandError, match="--max-age"):
        parse_duration("--max-age", text)


def test_nothing_given_is_nothing() -> None:
    assert parse_size("--max-bytes", None) is None
    assert parse_duration("--max-age", None) is None
