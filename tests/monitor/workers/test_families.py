"""Metrics of workers in one exposition."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from flowstream.monitor.workers.families import exposition, families_of, folded
from tests.monitor.workers.faces import OneWorker, Several


def value(body: bytes, name: str, **labels: str) -> float | None:
    """The sum of the samples of this name that have these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


SETTLED = "flowstream_settled_messages_total"


def test_every_series_has_the_number_of_its_worker() -> None:
    several = Several()
    parts = [(it.number, families_of(it.metrics)) for it in several.workers]
    _, body = exposition(parts, [], "")
    for family in text_string_to_metric_families(body.decode()):
        assert all(sample.labels["worker"] in {"1", "2"} for sample in family.samples)
    assert value(body, SETTLED, worker="1", outcome="ok") == 100
    assert value(body, SETTLED, outcome="ok") == 150
    assert value(body, "flowstream_latency_seconds_count") == 150


def test_counters_continue_after_a_restart_and_gauges_do_not() -> None:
    before, after = OneWorker(1, ["s-0"], 100), OneWorker(1, ["s-0"], 5)
    _, body = exposition([(1, families_of(after.metrics))], [(1, families_of(before.metrics))], "")
    assert value(body, SETTLED, worker="1", outcome="ok") == 105
    assert value(body, "flowstream_latency_seconds_sum") == 105 * 0.01
    assert value(body, "flowstream_build_info", worker="1") == 1


def test_ended_processes_are_kept_as_one_for_each_worker() -> None:
    parts = [(1, families_of(OneWorker(1, ["s-0"], count).metrics)) for count in (1, 2, 4)]
    kept = folded(parts)
    assert len(kept) == 1
    _, body = exposition([], kept, "")
    assert value(body, SETTLED, worker="1", outcome="ok") == 7


def test_open_metrics_are_negotiated() -> None:
    content_type, body = exposition([(1, families_of(OneWorker(1, ["s-0"], 1).metrics))], [],
                                    "application/openmetrics-text; version=1.0.0")  # fmt: skip
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
