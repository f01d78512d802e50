"""The catalogue follows the conventions of Prometheus."""

from __future__ import annotations

import re

from flowstream.metrics import CATALOGUE


def test_names_follow_prometheus() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names)
    for metric in CATALOGUE:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        for unit in ("seconds", "bytes", "messages"):
            if metric.unit == unit:
                assert metric.name.endswith(f"_{unit}"), metric.name
