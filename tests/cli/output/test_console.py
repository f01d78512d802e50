"""What is said is written as it stands, on a terminal and in a pipe."""

from __future__ import annotations

from tests.cli.command import Terminal, flowstream

FILE = "orders:id:42[red].csv"


def test_a_name_is_no_markup_and_no_emoji() -> None:
    line = ("publish", "orders", FILE)
    piped = flowstream(*line)
    assert piped.err.startswith(f"error: cannot read {FILE}: ")
    with Terminal(*line) as terminal:
        assert terminal.end() == piped.code == 20
    assert f"error: cannot read {FILE}: " in terminal.screen
    assert b"\x1b[1;31merror: " in terminal.raw


def test_a_pipe_is_coloured_where_that_is_forced() -> None:
    table = flowstream("exit-codes", env={"FORCE_COLOR": "1"})
    assert "\x1b[1m" in table.out
    error = flowstream("graph", "gone", env={"FORCE_COLOR": "1"})
    assert error.err.startswith("\x1b[1;31merror: ")
