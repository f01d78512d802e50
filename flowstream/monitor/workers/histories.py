"""The curves of workers -> the curves of the run: samples of the same second together. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowstream.monitor.history import HISTORY

SUMMED = ("rate", "failed", "in_flight")
WORST = ("p99",)


def merged_curves(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The curves of one pipeline. Latencies are weighted by rate; p99 is that of the slowest.

    Lag is the most that a worker saw: each of them measures all partitions of the group.
    """
    rows: dict[int, list[dict[str, float]]] = {}
    for part in parts:
        for index, at in enumerate(part["at"]):
            rows.setdefault(round(at), []).append(
                {name: values[index] for name, values in part.items() if index < len(values)}
            )
    curves: dict[str, list[float]] = {
        name: [] for name in ("at", "rate", "failed", "latency", "p99", "lag", "in_flight")
    }
    for at in sorted(rows)[-HISTORY:]:
        row = rows[at]
        curves["at"].append(float(at))
        for name in SUMMED:
            curves[name].append(sum(it.get(name, 0.0) for it in row))
        curves["p99"].append(max(it.get("p99", 0.0) for it in row))
        curves["lag"].append(max(it.get("lag", 0.0) for it in row))
        curves["latency"].append(weighted((it.get("latency"), it.get("rate", 0.0)) for it in row))
    return curves


def weighted(values: Any) -> float:
    """The mean of (value, weight) pairs; 0 without a weight."""
    known = [(value, weight) for value, weight in values if value is not None]
    whole = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / whole if whole else 0.0


def merged_usage(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """CPU and memory of all processes together."""
    rows: dict[int, dict[str, float]] = {}
    for part in parts:
        history = part["history"]
        for at, cpu, memory in zip(history["at"], history["cpu"], history["memory"], strict=False):
            row = rows.setdefault(round(at), {"cpu": 0.0, "memory": 0.0})
            row["cpu"] += cpu
            row["memory"] += memory
    times = sorted(rows)[-HISTORY:]
    return {
        "cores": max((part["cores"] or 1 for part in parts), default=None),
        "cpu": _total(part["cpu"] for part in parts),
        "memory": _total(part["memory"] for part in parts),
        "history": {
            "at": [float(at) for at in times],
            "cpu": [rows[at]["cpu"] for at in times],
            "memory": [rows[at]["memory"] for at in times],
        },
    }


def _total(values: Any) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
