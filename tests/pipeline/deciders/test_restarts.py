"""Restarts are bounded within a window of time."""

from __future__ import annotations

from flowstream.pipeline.deciders.restarts import Restarts


def test_restarts_are_bounded_within_a_window():
    restarts = Restarts(2, 5.0)
    assert [restarts.allow(now) for now in (0, 1, 2)] == [True, True, False]
    assert restarts.allow(6.5)
    assert restarts.total == 4
