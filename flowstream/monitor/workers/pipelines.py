"""What several workers show of one pipeline -> what the run shows of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flowstream.monitor.condition import ORDER, Condition
from flowstream.monitor.figures import MAX_REASONS, OTHER
from flowstream.monitor.health import READY_PHASES
from flowstream.monitor.snapshot import outcomes_in_order, shown_condition
from flowstream.monitor.workers.histories import merged_curves, weighted
from flowstream.pipeline import Reason, merged_reasons

Place = tuple[str, str]
"""The kind and the name of a stage: a batcher may have the name of the processor."""
Part = tuple[int, Mapping[str, Any]]
"""The number of a worker, and its snapshot of the pipeline."""

COUNTED = (
    "received", "settled", "abandoned", "failed", "failed_attempts", "retried", "crashes",
    "commit_failures", "truncated",
)  # fmt: skip
"""Counts since the start: those of ended processes are included."""
HELD = (
    "in_flight", "in_flight_bytes", "max_in_flight", "max_in_flight_bytes", "awaiting_policy",
    "rate", "received_rate",
)  # fmt: skip
"""What the running processes hold now."""
STAGE_SUMS = (
    "concurrency", "active", "waiting", "parked", "handled", "failed", "retried", "hung", "rate",
    "open_batches", "batches",
)  # fmt: skip
PAST_SUMS = ("handled", "failed", "retried", "batches")
"""Those of the sums that also count for processes that have ended."""


def merged_pipeline(
    parts: Sequence[Part], ended: Sequence[Mapping[str, Any]], trouble: Condition | None = None
) -> dict[str, Any]:
    """One pipeline of the run; `ended` are the last snapshots of processes that have ended.

    `trouble` is what is wrong with a worker itself: it died lately, or does not answer.
    """
    shown = [it for _, it in parts]
    counted = [*shown, *ended]
    first = shown[0]
    streams = merged_streams(parts)
    phase = "running" if any(it["phase"] == "running" for it in shown) else first["phase"]
    lags = [stream["lag"] for stream in streams if stream["lag"] is not None]
    return {
        **first,
        **{name: sum(it[name] for it in counted) for name in COUNTED},
        **{name: sum(it[name] for it in shown) for name in HELD},
        "phase": phase,
        "phase_seconds": max(it["phase_seconds"] for it in shown if it["phase"] == phase),
        "condition": _condition(parts, trouble),
        "outcomes": outcomes_in_order(_added(it["outcomes"] for it in counted)),
        "dropped": _dropped(counted),
        "reasons": _reasons(counted),
        "uncommitted": max(it["uncommitted"] for it in shown),
        "rate_limit": _limit([it["rate_limit"] for it in shown]),
        "latency": weighted((it["latency"], it["rate"]) for it in shown) or first["latency"],
        "latency_quantiles": {
            name: _most(it["latency_quantiles"][name] for it in shown)
            for name in first["latency_quantiles"]
        },
        "lag": sum(lags) if lags else None,
        "lag_seconds": _most(stream["lag_seconds"] for stream in streams),
        "catch_up": _most(it["catch_up"] for it in shown),
        "source": _source(shown),
        "stages": [_stage(place, shown, ended) for place in _places(shown)],
        "streams": streams,
        "elsewhere": _elsewhere(shown, streams),
        "history": merged_curves([it["history"] for it in shown]),
    }


def summed_counts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What processes that have ended counted of one pipeline, as if they had been one."""
    stages = []
    for kind, name in _places(parts):
        found = _stages(parts, (kind, name))
        counts = {key: sum(it[key] for it in found) for key in PAST_SUMS}
        triggers = dict(_added(it["triggers"] for it in found))
        stages.append({"kind": kind, "name": name, **counts, "triggers": triggers})
    return {
        "name": parts[0]["name"],
        **{name: sum(it[name] for it in parts) for name in COUNTED},
        "outcomes": dict(_added(it["outcomes"] for it in parts)),
        "dropped": _dropped(parts),
        "reasons": _reasons(parts),
        "stages": stages,
    }


def merged_streams(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Each partition as the worker sees it that reads it, with the number of that worker."""
    found: dict[str, dict[str, Any]] = {}
    for number, pipeline in parts:
        for stream in pipeline["streams"]:
            known = found.get(stream["stream"])
            if known is None or (stream["active"] and not known["active"]):
                worker = number if stream["active"] else None
                found[stream["stream"]] = {**stream, "worker": worker}
    return [found[name] for name in sorted(found)]


def _reasons(pipelines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = (Reason.read(reason) for it in pipelines for reason in it["reasons"])
    return [asdict(reason) for reason in merged_reasons(found)]


def _condition(parts: Sequence[Part], trouble: Condition | None) -> dict[str, Any]:
    """The condition that needs attention most: of the workers that run, or `trouble` with one."""
    running = [it for it in parts if it[1]["phase"] in READY_PHASES] or parts
    number, worst = min(running, key=lambda it: ORDER.index(it[1]["condition"]["name"]))
    if trouble is not None and ORDER.index(worst["condition"]["name"]) > trouble.rank:
        return shown_condition(trouble)
    condition: dict[str, Any] = dict(worst["condition"])
    if condition["why"] and len(parts) > 1:
        condition["why"] = f"worker {number}: {condition['why']}"
    return condition


def _elsewhere(shown: Sequence[Mapping[str, Any]], streams: Sequence[Mapping[str, Any]]) -> Any:
    known = {stream["stream"] for stream in streams}
    return sorted({name for it in shown for name in it["elsewhere"]} - known)


def _source(shown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sources = [it["source"] for it in shown]
    failing = any(it["failing"] for it in sources)
    return {**sources[0], "states": _mean_states(sources), "failing": failing}


def _place(stage: Mapping[str, Any]) -> Place:
    return stage["kind"], stage["name"]


def _places(shown: Sequence[Mapping[str, Any]]) -> list[Place]:
    return list(dict.fromkeys(_place(stage) for it in shown for stage in it["stages"]))


def _stages(pipelines: Iterable[Mapping[str, Any]], place: Place) -> list[Mapping[str, Any]]:
    return [stage for it in pipelines for stage in it["stages"] if _place(stage) == place]


def _stage(
    place: Place, shown: Sequence[Mapping[str, Any]], ended: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    stages, past = _stages(shown, place), _stages(ended, place)
    sums: dict[str, Any] = {key: sum(it[key] for it in stages) for key in STAGE_SUMS}
    for key in PAST_SUMS:
        sums[key] += sum(it[key] for it in past)
    states = _mean_states(stages)
    return {
        **stages[0],
        **sums,
        "busy": states.get("busy", 0.0),
        "states": states,
        "failing": any(it["failing"] for it in stages),
        "failing_share": weighted((it["failing_share"], it["rate"]) for it in stages),
        "longest": max(it["longest"] for it in stages),
        "hot_key": next((it["hot_key"] for it in stages if it["hot_key"]), None),
        "mean_batch": _mean(stages, "mean_batch"),
        "mean_wait": _mean(stages, "mean_wait"),
        "triggers": dict(_added(it["triggers"] for it in (*stages, *past))),
    }


def _mean(stages: Sequence[Mapping[str, Any]], name: str) -> float | None:
    if all(stage[name] is None for stage in stages):
        return None
    return weighted((stage[name], stage["batches"]) for stage in stages)


def _mean_states(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean shares of time, of the parts that have some."""
    known = [part["states"] for part in parts if part["states"]]
    whole = _added(known)
    return {name: share / len(known) for name, share in whole.items()}


def _added(counts: Iterable[Mapping[str, Any]]) -> Counter[str]:
    whole = Counter[str]()
    for each in counts:
        for name, count in each.items():
            whole[name] += count
    return whole


def _dropped(counted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    whole = Counter[tuple[str, bool]]()
    for pipeline in counted:
        for drop in pipeline["dropped"]:
            whole[drop["reason"], drop["intentional"]] += drop["messages"]
    found = whole.most_common()
    kept = Counter(dict(found[:MAX_REASONS]))
    for (_, intentional), messages in found[MAX_REASONS:]:
        kept[OTHER, intentional] += messages
    return [
        {"reason": reason, "intentional": intentional, "messages": messages}
        for (reason, intentional), messages in kept.most_common()
    ]


def _limit(limits: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The limits of all workers together; None as soon as one has no limit."""
    known = [it for it in limits if it is not None]
    if not known or len(known) < len(limits):
        return None

    def total(name: str) -> float | None:
        return None if any(it[name] is None for it in known) else sum(it[name] for it in known)

    return {**known[0], "messages": total("messages"), "bytes": total("bytes")}


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
