"""With statistics and events, a scrape has a value for every metric of the catalogue."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from flowstream.metrics import CATALOGUE, Metrics
from flowstream.monitor import Board
from flowstream.monitor.gauges import refresh
from tests.metrics.test_registry import EVENTS
from tests.monitor.figures import Changing


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
