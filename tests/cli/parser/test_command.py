"""Options that may stand without a value, and commands whose work is in another module."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, get_type_hints

import pytest

from flowstream.cli.app import COMMANDS
from flowstream.cli.parser.command import fill_optional_values
from flowstream.cli.parser.options import LOGIN_OPTIONS
from flowstream.cli.usage.run import OPTIONAL

DECLARED = [
    (inspect.unwrap(command.callback), app.work)
    for app in {entry.module: import_module(entry.module).app for entry in COMMANDS}.values()
    for command in app.registered_commands
]
"""The function that declares each command, and the module of its work."""


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


@pytest.mark.parametrize(
    ("declared", "module"), DECLARED, ids=lambda it: getattr(it, "__qualname__", it)
)
def test_the_work_takes_the_options_that_are_declared(declared: Any, module: str) -> None:
    work = getattr(import_module(module), declared.__name__)
    assert inspect.signature(declared).parameters.keys().isdisjoint(LOGIN_OPTIONS)
    assert [*inspect.signature(work).parameters] == [*inspect.signature(declared).parameters]
    taken = get_type_hints(work)
    for name, kind in get_type_hints(declared).items():
        assert taken[name] == kind or "Any" in str(kind), name
