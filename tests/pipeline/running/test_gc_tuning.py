"""The garbage collector is tuned inside, and as it was afterwards."""

from __future__ import annotations

import gc

import pytest

from flowstream.pipeline import tuned_collector
from flowstream.pipeline.running.gc_tuning import THRESHOLD


@pytest.mark.medium
def test_it_is_as_it_was_afterwards() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    inside: list[tuple[tuple[int, int, int], bool]] = []

    def broken() -> None:
        with tuned_collector():
            inside.append((gc.get_threshold(), gc.get_freeze_count() > frozen))
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        broken()
    assert inside == [((THRESHOLD, *before[1:]), True)]
    assert gc.get_threshold() == before


def test_nothing_is_changed_where_that_is_not_wanted() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with tuned_collector(enabled=False):
        assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)
