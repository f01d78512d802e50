"""The values of one metric by its labels, and their form in a Prometheus exposition.

All updates happen on the event loop, so counting is an update of a dict. The counters of the
Prometheus client take a lock and look up the labels at every call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)

from flowstream.metrics.catalogue import PREFIX, Metric

Labels: TypeAlias = tuple[str, ...]


class Values:
    """The values of a counter or gauge: one number for each combination of labels."""

    __slots__ = ("metric", "rows")

    def __init__(self, metric: Metric) -> None:
        self.metric: Metric = metric
        self.rows: dict[Labels, float] = {}

    def add(self, amount: float, labels: Labels) -> None:
        self.rows[labels] = self.rows.get(labels, 0) + amount

    def set(self, value: float, *labels: str) -> None:
        self.rows[labels] = value

    def ensure(self, *labels: str) -> None:
        """Start at 0, so that Prometheus sees the first increase."""
        self.rows.setdefault(labels, 0)

    def replace(self, rows: Mapping[Labels, float]) -> None:
        """Replace all values."""
        self.rows = dict(rows)

    def remove(self, *labels: str) -> None:
        self.rows.pop(labels, None)

    def family(self) -> Family:
        """The values for an exposition."""
        metric, name = self.metric, PREFIX + self.metric.name
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(name, metric.help, labels=metric.labels)
        for labels, value in self.rows.items():
            family.add_metric(labels, value)
        return family


class Distribution:
    """The values of a histogram. One observation may count for several messages: `weight` times."""

    __slots__ = ("metric", "rows")

    def __init__(self, metric: Metric) -> None:
        self.metric: Metric = metric
        self.rows: dict[Labels, list[float]] = {}

    def observe(self, value: float, labels: Labels, weight: int = 1) -> None:
        row = self.rows.get(labels)
        if row is None:  # a count for each bucket, one for all larger values, and the sum
            row = self.rows[labels] = [0.0] * (len(self.metric.buckets) + 2)
        row[bisect_left(self.metric.buckets, value)] += weight
        row[-1] += value * weight

    def family(self) -> Family:
        """The values for an exposition."""
        metric = self.metric
        family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
        bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
        for labels, row in self.rows.items():
            buckets = list(zip(bounds, accumulate(row[:-1]), strict=True))
            family.add_metric(labels, buckets, row[-1])
        return family
