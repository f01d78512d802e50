"""The bodies are real, of many lengths, and the same in every process."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain

from tests.benchmarks.bodies import KEY, RECORDED, bodies, distinct, slices
from tests.benchmarks.shapes import Order


def test_lengths_vary_as_they_were_recorded() -> None:
    lengths = Counter(map(len, distinct()))
    assert (min(lengths), max(lengths)) == (92, 130)
    assert max(lengths.values()) < len(distinct()) / 10  # no length is common
    neighbours = zip(distinct(), distinct()[1:], strict=False)
    assert sum(len(one) == len(other) for one, other in neighbours) < len(distinct()) / 10


def test_keys_are_skewed() -> None:
    carriers = Counter(body[KEY].decode() for body in distinct())
    assert set(carriers) == set(RECORDED["carriers"])
    assert len(carriers) == 16
    assert carriers["UA"] > 1000 * carriers["OO"]


def test_each_body_is_an_order() -> None:
    for body in distinct()[::1000]:
        order = Order.model_validate_json(body)
        assert order.by == json.loads(body)["by"] == body[KEY].decode()


def test_bodies_and_slices_are_the_same() -> None:
    assert list(chain.from_iterable(slices(2500, 1000))) == bodies(2500)
    assert [len(some) for some in slices(2500, 1000)] == [1000, 1000, 500]
    assert len(bodies(100_000)) == 100_000
