"""`--debug` is read anywhere before the dashes."""

from __future__ import annotations

from flowstream.cli.app import take_debug


def test_debug_is_taken_from_anywhere_before_the_dashes() -> None:
    assert take_debug(["run", "x", "--debug"]) == (True, ["run", "x"])
    assert take_debug(["run", "--", "--debug"]) == (False, ["run", "--", "--debug"])
