"""Metrics of workers -> one exposition: every series of a worker, with the label `worker`.

A counter is that of all processes that had the number of the worker, so that it never falls. What
a killed process counted after its last scrape is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from flowstream.metrics import Metrics
from flowstream.monitor.workers.views import Families

COUNTED = frozenset({"counter", "histogram"})
"""Types of metrics whose values are added up over the processes of a worker."""


def families_of(metrics: Metrics) -> list[Any]:
    """All metrics of a process, as JSON-ready data."""
    for refresh in metrics.before_scrape:
        refresh(metrics)
    return [
        [family.name, family.type, family.documentation, family.unit,
         [[sample.name, sample.labels, sample.value] for sample in family.samples]]
        for family in metrics.registry.collect()
    ]  # fmt: skip


class Parts:
    """The processes of all workers, by number: those that run, and those that count only."""

    def __init__(
        self, running: Sequence[tuple[int, Families]], counting: Sequence[tuple[int, Families]]
    ) -> None:
        self._running = running
        self._counting = counting

    def collect(self) -> Iterator[Metric]:
        """Every metric, for a registry."""
        found: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for number, families in self._running:
            _add(found, values, number, families, only=None)
        for number, families in self._counting:
            _add(found, values, number, families, only=COUNTED)
        for name, metric in found.items():
            for (sample, labels), value in values[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric


def _add(
    found: dict[str, Metric],
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]],
    number: int,
    families: Families,
    only: frozenset[str] | None,
) -> None:
    for name, kind, about, unit, samples in families:
        if only is not None and kind not in only:
            continue
        if name not in found:
            found[name], values[name] = Metric(name, about, kind, unit), {}
        rows = values[name]
        for sample, labels, value in samples:
            key = (sample, (*labels.items(), ("worker", str(number))))
            rows[key] = rows.get(key, 0.0) + value if kind in COUNTED else value


def exposition(
    running: Sequence[tuple[int, Families]],
    counting: Sequence[tuple[int, Families]],
    accept: str,
) -> tuple[str, bytes]:
    """The content type and body of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Parts(running, counting))
    encoder, content_type = choose_encoder(accept)
    return content_type, encoder(registry)


def folded(families: Iterable[tuple[int, Families]]) -> list[tuple[int, Families]]:
    """The counts of ended processes, added up for each number, so that they stay bounded."""
    by_number: dict[int, list[Families]] = {}
    for number, each in families:
        by_number.setdefault(number, []).append(each)
    return [
        (number, each[0] if len(each) == 1 else _sum(each)) for number, each in by_number.items()
    ]


def _sum(parts: Sequence[Families]) -> list[Any]:
    found: dict[str, list[Any]] = {}
    rows: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in parts:
        for name, kind, about, unit, samples in families:
            if kind not in COUNTED:
                continue
            found.setdefault(name, [name, kind, about, unit])
            row = rows.setdefault(name, {})
            for sample, labels, value in samples:
                key = (sample, tuple(labels.items()))
                row[key] = row.get(key, 0.0) + value
    return [
        [*head, [[sample, dict(labels), value] for (sample, labels), value in rows[name].items()]]
        for name, head in found.items()
    ]
