"""Snapshots of workers -> the snapshot of the run, in the form of that of one process. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowstream.monitor.advice import advice
from flowstream.monitor.condition import ORDER, RECENT, Condition
from flowstream.monitor.event_log import MAX_ENTRIES
from flowstream.monitor.workers.families import folded
from flowstream.monitor.workers.histories import merged_usage
from flowstream.monitor.workers.pipelines import merged_pipeline, summed_counts
from flowstream.monitor.workers.views import Families, Retired, Snapshot, WorkerView
from flowstream.texts import plural
from flowstream.version import __version__

SILENT_GRACE = 10.0
"""Seconds for which a worker may answer nothing before the run is not ready."""
MISSING_GRACE = 30.0
"""Seconds for which a worker may be missing before the run is not ready: others have its work."""


def merged_snapshot(
    views: Sequence[WorkerView],
    retired: Retired,
    *,
    started: float,
    now: float,
    events: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What the live page and the terminal show of a run. `events` are those of the parent."""
    shown = [view for view in views if view.snapshot is not None]
    snapshots = [view.snapshot for view in shown if view.snapshot is not None]
    return {
        "version": __version__,
        "broker": next((it["broker"] for it in snapshots if it["broker"]), ""),
        "now": now,
        "uptime": now - started,
        "connections": _added(it["connections"] for it in snapshots),
        "lost": sum(it["lost"] for it in snapshots),
        "losses": [each for it in snapshots for each in it["losses"]],
        "away": [each for it in snapshots for each in it["away"]],
        "starting": _starting(snapshots, views),
        "not_ready": not_ready(views, now),
        "pipelines": _pipelines(shown, retired, _death(views, now)),
        "events": _events(shown, events),
        "process": {"pid": None, **merged_usage([it["process"] for it in snapshots])},
        "control": any(it["control"] for it in snapshots),
        "workers": [_worker(view, now) for view in views],
    }


def not_ready(views: Sequence[WorkerView], now: float) -> list[dict[str, Any]]:
    """The failing checks of the run: those of running workers, and workers that are missing."""
    failing = []
    ready = [view for view in views if view.state == "ready"]
    for view in ready:
        failing += [
            {**check, "detail": f"worker {view.number}: {check['detail']}"}
            for check in (view.snapshot or {}).get("not_ready", ())
        ]
        if (detail := _silence(view)) is not None:
            failing.append({"pipeline": "", "check": "answers", "detail": detail,
                            **advice("answers")})  # fmt: skip
    missing = [view for view in views if view.state in {"starting", "waiting"}]
    missing = [view for view in missing if not view.replacement]
    late = [it for it in missing if now - it.since > MISSING_GRACE or not it.restarts]
    if late or not ready:
        absent = late or missing
        numbers = ", ".join(str(view.number) for view in absent)
        what = f"worker {numbers} is" if len(absent) == 1 else f"workers {numbers} are"
        why = next((f": {it.last_error}" for it in absent if it.last_error), "")
        detail = f"{what} not running{why}" if absent else "no worker is ready"
        failing.append({"pipeline": "", "check": "phase", "detail": detail, **advice("phase")})
    return failing


def with_ended(retired: Retired, number: int, snapshot: Snapshot, families: Families) -> Retired:
    """What ended processes counted, with one more of them: its last snapshot and metrics."""
    pipelines: dict[str, list[Mapping[str, Any]]] = {}
    for each in (*retired.snapshots, snapshot):
        for pipeline in each["pipelines"]:
            pipelines.setdefault(pipeline["name"], []).append(pipeline)
    counts = {"pipelines": [summed_counts(found) for found in pipelines.values()]}
    return Retired([counts], folded([*retired.families, (number, families)]))


def _death(views: Sequence[WorkerView], now: float) -> str:
    """The last worker that died lately, and why; empty if none did."""
    died = [(it.died, it) for it in views if it.died is not None and now - it.died <= RECENT]
    if not died:
        return ""
    at, last = max(died, key=lambda it: it[0])
    again = plural(sum(view.restarts for view in views if not view.replacement), "time")
    return (
        f"worker {last.number} died {max(0.0, now - at):.0f} s ago: {last.last_error} (workers "
        f"were started again {again} in this run)"
    )


def _silence(view: WorkerView) -> str | None:
    """For how long a worker has not answered, if that is too long."""
    if view.silent <= SILENT_GRACE:
        return None
    return f"worker {view.number}: no answer for {view.silent:.0f} s"


def _last_known(pipeline: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a silent worker showed last: the others know more of its partitions."""
    streams = [{**stream, "active": False} for stream in pipeline["streams"]]
    return {**pipeline, "rate": 0.0, "received_rate": 0.0, "streams": streams}


def _pipelines(shown: Sequence[WorkerView], retired: Retired, death: str) -> list[dict[str, Any]]:
    parts: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    trouble = Condition("failing", death, "died") if death else None
    for view in sorted(shown, key=lambda view: _silence(view) is not None):
        silence = _silence(view)
        if silence is not None and trouble is None:
            trouble = Condition("not ready", silence, "answers")
        for pipeline in (view.snapshot or {})["pipelines"]:
            known = pipeline if silence is None else _last_known(pipeline)
            parts.setdefault(pipeline["name"], []).append((view.number, known))
    ended: dict[str, list[Mapping[str, Any]]] = {}
    for snapshot in retired.snapshots:
        for pipeline in snapshot["pipelines"]:
            ended.setdefault(pipeline["name"], []).append(pipeline)
    merged = [merged_pipeline(found, ended.get(name, []), trouble) for name, found in parts.items()]
    return sorted(merged, key=lambda it: ORDER.index(it["condition"]["name"]))


def _starting(snapshots: Sequence[Mapping[str, Any]], views: Sequence[WorkerView]) -> list[str]:
    """Pipelines that no worker runs yet."""
    running = {it["name"] for snapshot in snapshots for it in snapshot["pipelines"]}
    starting = {name for snapshot in snapshots for name in snapshot["starting"]} - running
    if not snapshots:
        return [f"worker {view.number}" for view in views[:1]]
    return sorted(starting)


def _events(shown: Sequence[WorkerView], own: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [dict(event) for event in own]
    for view in shown:
        found += [
            {**event, "text": f"worker {view.number}: {event['text']}"}
            for event in (view.snapshot or {})["events"]
        ]
    return sorted(found, key=lambda event: -event["at"])[:MAX_ENTRIES]


def _worker(view: WorkerView, now: float) -> dict[str, Any]:
    """The row of one process in the table of workers."""
    snapshot = view.snapshot or {"pipelines": [], "process": {}}
    pipelines = snapshot["pipelines"]
    held = [
        stream["stream"]
        for pipeline in pipelines
        for stream in pipeline["streams"]
        if stream["active"]
    ]
    return {
        "number": view.number,
        "pid": view.pid,
        "state": view.state,
        "seconds": max(0.0, now - view.since),
        "replacement": view.replacement,
        "restarts": view.restarts,
        "last_error": view.last_error,
        "partitions": sorted(set(held)),
        "rate": sum(it["rate"] for it in pipelines),
        "settled": sum(it["settled"] for it in pipelines),
        "failed": sum(it["failed"] for it in pipelines),
        "in_flight": sum(it["in_flight"] for it in pipelines),
        "cpu": snapshot["process"].get("cpu"),
        "memory": snapshot["process"].get("memory"),
    }


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            whole[name] = whole.get(name, 0) + count
    return whole
