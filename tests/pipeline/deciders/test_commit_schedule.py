"""Commits are due by count and by interval, and only after something settled."""

from __future__ import annotations

from flowstream.pipeline.deciders.commit_schedule import CommitSchedule


def test_commits_are_due_by_count_and_by_interval_and_only_when_something_settled():
    schedule = CommitSchedule(100, 5.0, now=0)
    assert not schedule.due(1000)
    assert not schedule.settled(99)
    assert not schedule.due(4.9)
    assert schedule.due(5.0)
    assert schedule.settled(1)
    assert schedule.due(0)
    schedule.committed(7.0)
    assert not schedule.due(100)
    schedule.settled(1)
    assert not schedule.due(11.9)
    assert schedule.due(12.0)


def test_what_could_not_be_stored_is_due_at_the_next_interval_and_not_before():
    schedule = CommitSchedule(1, 5.0, now=0)
    schedule.settled(1)
    schedule.committed(7.0)
    schedule.failed()
    assert schedule.waiting
    assert not schedule.due(11.9)
    assert schedule.due(12.0)
    schedule.committed(12.0)
    assert not schedule.waiting
