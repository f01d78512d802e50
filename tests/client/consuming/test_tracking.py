"""When tracking stores an offset, and which one."""

from __future__ import annotations

from flowstream.client import AutoTracking
from flowstream.client.consuming.tracking import Tracker


def test_the_tracker_stores_by_count_and_only_what_advanced() -> None:
    tracker = Tracker(AutoTracking(messages=10))
    assert tracker.due() is None
    assert tracker.processed(3, 4) is None
    assert tracker.processed(11, 8) == 11
    assert tracker.due() is None
    assert tracker.processed(12, 1) is None
    assert tracker.due() == 12
    assert tracker.unverified() == 12
    tracker.forget()
    assert tracker.unverified() is None


def test_the_manual_tracker_stores_what_it_is_told() -> None:
    tracker = Tracker("manual")
    assert tracker.processed(100, 100_000) is None
    assert tracker.unverified() is None
    tracker.stored = 0
    assert tracker.unverified() == 0
