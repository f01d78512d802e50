"""The metrics of a run: a catalogue of them as data, and a Prometheus registry fed by telemetry.

    metrics = Metrics()
    telemetry = Telemetry(metrics)
    ...
    content_type, body = metrics.exposition(accept=request_header)

What this room promises: nothing is counted per message, the number of series is bounded, and the
registry exposes exactly the metrics of the catalogue beside those of the process.

Read in this order:

    catalogue.py    every metric: name, type, labels, help text
    registry.py     which telemetry event changes which metric
    series.py       the values of one metric, and their form in an exposition

`monitor/gauges.py` sets the metrics that are read from the statistics of running pipelines.
CONTRIBUTING.md shows how to add a metric.
"""

from flowstream.metrics.catalogue import CATALOGUE, PREFIX, Group, Metric
from flowstream.metrics.registry import MAX_VALUES, OTHER, Metrics

__all__ = ["CATALOGUE", "MAX_VALUES", "OTHER", "PREFIX", "Group", "Metric", "Metrics"]
