"""Options that may stand without a value, and negative numbers as arguments."""

from __future__ import annotations

import pytest

from flowstream.cli.commands.run import OPTIONAL
from flowstream.cli.parser.command import fill_optional_values


@pytest.mark.parametrize(
    ("line", "filled"),
    [
        ("orders --until-idle", "orders --until-idle=2"),
        ("--until-idle orders", "--until-idle=2 orders"),
        ("--until-idle 5 orders", "--until-idle 5 orders"),
        ("--until-idle .5 orders", "--until-idle .5 orders"),
        ("--until-idle=5 orders", "--until-idle=5 orders"),
        ("--http orders", "--http=127.0.0.1:9464 orders"),
        ("--http :80 --until-idle", "--http :80 --until-idle=2"),
        ("--http localhost:80 a:b", "--http localhost:80 a:b"),
        ("--http a:b", "--http=127.0.0.1:9464 a:b"),
        ("--until-idle -1", "--until-idle -1"),
        ("-- --until-idle", "-- --until-idle"),
    ],
)
def test_an_option_without_a_value_gets_its_own(line: str, filled: str) -> None:
    assert fill_optional_values(line.split(), OPTIONAL) == filled.split()
