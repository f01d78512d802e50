"""The metric catalogue and its Prometheus registry, fed by telemetry events.

    metrics = Metrics()
    telemetry = Telemetry(metrics)
    ...
    content_type, body = metrics.exposition(accept=request_header)

`CATALOGUE` (catalogue.py) is every metric as data; `make dashboards` writes docs/metrics.md from
it. This file is the room's contract.
"""

from flowstream.metrics.catalogue import CATALOGUE, PREFIX, Group, Metric
from flowstream.metrics.registry import MAX_VALUES, OTHER, Metrics

__all__ = ["CATALOGUE", "MAX_VALUES", "OTHER", "PREFIX", "Group", "Metric", "Metrics"]
