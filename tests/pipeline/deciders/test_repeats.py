"""What happens again and again is logged at first, and then once an interval with a count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.repeats import INTERVAL, KINDS, Repeats, more


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 90)), max_size=50))
def test_what_is_logged_accounts_for_all_that_happened(steps: list[tuple[str, int]]) -> None:
    repeats, now = Repeats(), 0
    logged: dict[str, list[int]] = {"a": [], "b": []}
    counted = dict.fromkeys("ab", 0)
    happened = dict.fromkeys("ab", 0)
    for kind, pause in steps:
        now += pause
        happened[kind] += 1
        left_out = repeats.due(kind, now)
        if left_out is not None:
            assert not logged[kind] or now - logged[kind][-1] >= INTERVAL
            logged[kind].append(now)
            counted[kind] += left_out + 1
    for kind in "ab":
        since = repeats.due(kind, now + INTERVAL)
        assert since is not None
        assert counted[kind] + since == happened[kind]


def test_what_is_over_begins_anew() -> None:
    repeats = Repeats()
    assert [repeats.due("a", now) for now in (0, 1, 2)] == [0, None, None]
    repeats.forget("a")
    assert repeats.due("a", 3) == 0


def test_the_latest_kinds_are_remembered() -> None:
    repeats = Repeats()
    for kind in range(KINDS + 1):
        assert repeats.due(kind, 0) == 0
    assert repeats.due(KINDS, 1) is None
    assert repeats.due(0, 1) == 0, "forgotten, so it counts as new"


def test_the_text_has_a_count_only_where_there_is_one() -> None:
    assert more(0) == ""
    assert more(1200) == " (1,200 more since the last record of this)"
