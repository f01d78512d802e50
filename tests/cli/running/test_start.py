"""`flowstream run` declares its options in one module and does its work in another."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import typer

from flowstream.cli.commands import run as face
from flowstream.cli.parser.options import LOGIN_OPTIONS
from flowstream.cli.running import start


def test_the_work_takes_the_options_that_are_declared() -> None:
    declared = inspect.signature(face.run).parameters
    assert {*inspect.signature(start.run).parameters} == {*declared}
    assert declared.keys().isdisjoint(LOGIN_OPTIONS)


def test_a_message_to_discard() -> None:
    assert start.parse_message("orders-1@42") == ("orders-1", 42)
    with pytest.raises(typer.BadParameter, match="is not STREAM@OFFSET") as caught:
        start.parse_message("orders")
    assert "--discard" in caught.value.format_message()


def test_help_imports_neither_client_nor_pipeline() -> None:
    code = (
        "import sys, flowstream.cli.commands.run\n"
        "print(*[it for it in sys.modules if it.startswith('flowstream.')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    rooms = {name.split(".")[1] for name in found}
    assert rooms <= {"cli", "checks", "errors", "schema", "texts", "tls"}
