"""Values and distributions count by labels, and are exposed as Prometheus counts them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.metrics import CATALOGUE
from flowstream.metrics.series import Distribution, Values

COUNTER = next(m for m in CATALOGUE if m.kind == "counter" and len(m.labels) == 2)
HISTOGRAM = next(m for m in CATALOGUE if m.kind == "histogram")


def test_values_count_by_their_labels() -> None:
    values = Values(COUNTER)
    values.ensure("a", "b")
    values.add(2, ("a", "b"))
    values.ensure("a", "b")
    values.add(3, ("a", "c"))
    values.set(7, "a", "d")
    values.remove("a", "d")
    values.remove("never", "there")
    exposed = {tuple(sample.labels.values()): sample.value for sample in values.family().samples}
    assert exposed == values.rows == {("a", "b"): 2, ("a", "c"): 3}
    values.replace({("x", "y"): 1})
    assert values.rows == {("x", "y"): 1}


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 5)), max_size=30))
def test_each_bucket_counts_all_values_up_to_its_bound(given: list[tuple[float, int]]) -> None:
    seen, labels = Distribution(HISTOGRAM), ("x",) * len(HISTOGRAM.labels)
    for value, weight in given:
        seen.observe(value, labels, weight)
    samples = seen.family().samples
    if not given:
        assert samples == []
        return
    buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    for bound in HISTOGRAM.buckets:
        expected = sum(weight for value, weight in given if value <= bound)
        assert buckets[str(float(bound))] == expected
    count = sum(weight for _, weight in given)
    assert buckets["+Inf"] == count
    (total,) = [s.value for s in samples if s.name.endswith("_sum")]
    assert abs(total - sum(value * weight for value, weight in given)) < 1e-6
