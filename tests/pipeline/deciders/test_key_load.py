"""The hottest key is the one with the most messages, of the last ones only."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.key_load import LEAST, WINDOW, KeyLoad


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 60)), max_size=80))
def test_the_share_is_that_of_a_count_by_hand(counted: list[tuple[str, int]]) -> None:
    load: KeyLoad[str] = KeyLoad()
    model: Counter[str] = Counter()
    for key, messages in counted:
        load.count(key, messages)
        model[key] += messages
    if model.total() < LEAST:
        assert load.hottest is None
        return
    assert load.hottest is not None
    key, share = load.hottest
    assert model[key] == max(model.values())
    assert share == model[key] / model.total()


def test_a_key_cools_down() -> None:
    load: KeyLoad[str] = KeyLoad()
    load.count("hot", WINDOW)
    assert load.hottest == ("hot", 1.0), "of the window before, until the next says something"
    load.count("other", LEAST - 1)
    assert load.hottest == ("hot", 1.0)
    load.count("other", 1)
    assert load.hottest == ("other", 1.0)
