"""With statistics and events, a scrape has a value for every metric of the catalogue."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from flowstream.metrics import CATALOGUE, Metrics
from flowstream.monitor import Board
from flowstream.monitor.gauges import refresh
from tests.metrics.test_registry import EVENTS
from tests.monitor.figures import BATCHER, PROCESSOR, Changing


def test_every_metric_is_fed_by_these_events_and_statistics() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.observe(event)
    board = Board()
    board.watch("p", Changing())
    refresh(metrics, board)
    _, body = metrics.exposition()
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    for metric in CATALOGUE:
        family = families[metric.full_name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        assert family.samples, metric.name


def test_stages_of_one_name_count_together() -> None:
    """The gauges of the batcher hid those of the processor, whose counters have the same label."""
    metrics, board, statistics = Metrics(), Board(), Changing()
    statistics.change(stages=(PROCESSOR, replace(BATCHER, name="processor", longest=0.3)))
    board.watch("p", statistics)
    refresh(metrics, board)
    found = {
        (sample.name, sample.labels.get("state")): sample.value
        for family in text_string_to_metric_families(metrics.exposition()[1].decode())
        for sample in family.samples
        if sample.labels.get("stage") == "processor"
    }
    assert found["flowstream_workers", None] == 5
    assert found["flowstream_waiting_messages", None] == 60
    assert found["flowstream_longest_handler_seconds", None] == 0.3
    assert found["flowstream_stage_seconds_total", "idle"] == 70
