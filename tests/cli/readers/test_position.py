"""What moving a stored offset repeats or skips."""

from __future__ import annotations

import pytest

from flowstream.cli.readers.position import change_of

pytestmark = pytest.mark.timeout(300)  # many processes


@pytest.mark.parametrize(
    ("stored", "target", "first", "again", "skipped"),
    [
        (99, 0, 0, 100, 0),
        (-1, 0, 0, 0, 0),
        (None, 0, 0, 0, 0),
        (None, 30, 10, 0, 20),
        (41, 52, 0, 0, 10),
        (5, 20, 20, 0, 0),
    ],
)
def test_what_a_move_repeats_or_skips(
    stored: int | None, target: int, first: int, again: int, skipped: int
) -> None:
    found = change_of("s", "r", stored, target, first)
    assert (found.again, found.skipped) == (again, skipped)
