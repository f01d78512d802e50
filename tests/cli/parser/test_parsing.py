"""Sizes and times as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from flowstream.cli.parser.parsing import (
    parse_duration,
    parse_feed,
    parse_offset,
    parse_size,
    parse_workers,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("500", 500), ("100MB", 100_000_000), ("2 GiB", 2 << 30), ("3k", 3000), ("1TB", 10**12)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", timedelta(seconds=30)), ("12h", timedelta(hours=12)), ("2W", timedelta(weeks=2))],
)
def test_times(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "big", "1.5GB", "-3", "5XB"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "soon", "7", "7y", "1d12h"])
def test_what_is_not_a_time_span(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time span"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 19 + "B", "\u0663", "\uff13MB"])
def test_a_size_has_at_most_18_digits(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9" * 5000 + "s", "99999999w", "\u0663s"])
def test_a_time_span_is_at_most_three_decades(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time span"):
        parse_duration(text)
    with pytest.raises(typer.BadParameter, match="is not a position in a stream"):
        parse_offset(text)


@pytest.mark.parametrize("text", ["9" * 5000, "-1", "nan", "0001-01-01T00:00:00+14:00", "\u0663"])
def test_what_is_not_a_position(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a position in a stream"):
        parse_offset(text)


@pytest.mark.parametrize("rate", ["inf", "nan", "0", "1e300"])
def test_a_rate_of_a_feed_is_finite_and_more_than_0(rate: str) -> None:
    assert parse_feed("a@b.csv@500") == ("a@b.csv", 500.0)
    assert parse_feed("a@b.csv") == ("a@b.csv", 500.0)
    with pytest.raises(typer.BadParameter, match="more than 0 and at most"):
        parse_feed(f"orders.csv@{rate}")


@pytest.mark.parametrize("text", ["1", "8", "256", "auto"])
def test_a_number_of_workers(text: str) -> None:
    assert parse_workers(text) == text


@pytest.mark.parametrize("text", ["0", "-1", "257", "1.5", "", "many", "１", "9" * 5000])
def test_what_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="1 to 256, or auto"):
        parse_workers(text)
