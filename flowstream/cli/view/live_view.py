"""The live view of a run: redrawn in place on a terminal, elsewhere a plain line now and then.

Both read the monitor's board, so they show the same figures as the live page and the metrics. On a
terminal everything is fitted to the window (fold.py): pipelines with problems first, and the lag
and failures of each before other figures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

import anyio
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from flowstream.cli.output.console import note, one_line, short_duration, short_size, stderr
from flowstream.cli.output.safe_text import shortened
from flowstream.cli.view.fold import Block, Span, fitted, flow, table
from flowstream.texts import listed, plural

REFRESH = 0.5
"""Seconds between frames on a terminal."""

PLAIN_INTERVAL = 10.0
"""Seconds between lines if standard error is not a terminal."""

FIRST_LINES = 1.0
"""Seconds until plain lines name what the run is still waiting for."""

RECENT = 30.0
"""Seconds for which a failure is shown as recent."""

REASONS = 3
"""The number of failure reasons in a plain line, and before the streams in the view."""

LAST = 1_000_000
"""The rank of separators and of the event log."""

EVENTS = 8
"""Entries of the event log, if there is room."""

REASON_LENGTH = 300
"""Characters of a reason in a plain line; the view has two lines of it.

The log and the live page have all of it.
"""

EXPLAINED = {"lagging", "paused"}
"""Conditions whose reason the rest of a plain line says."""

_BARS = "▁▂▃▄▅▆▇█"
CHART_WIDTH = 40


class Shown(Protocol):
    """What a view shows: the board of a run, or the workers of one."""

    def snapshot(self) -> dict[str, Any]:
        """The run as it is now."""


class View:
    """Shows a board, in place on a terminal (`live`) or in lines."""

    def __init__(self, board: Shown, *, live: bool) -> None:
        self._board = board
        self._live = live
        self._drawing: Live | None = None

    async def show(self) -> None:
        """Show it until cancelled. The run continues if standard error is closed."""
        with suppress(OSError):
            await (self._draw() if self._live else self._print())

    def leave(self) -> None:
        """Restore the terminal, before the process ends at once."""
        if self._drawing is not None:
            self._drawing.stop()

    async def _print(self) -> None:
        await anyio.sleep(FIRST_LINES)
        for line in waited_for(self._board.snapshot(), least=FIRST_LINES / 2):
            note(line)
        while True:
            await anyio.sleep(PLAIN_INTERVAL)
            snapshot = self._board.snapshot()
            for line in plain_lines(snapshot):
                note(line)

    async def _draw(self) -> None:
        console = stderr()
        to_terminal = sys.stdout.isatty()  # what handlers print to a pipe or file stays there
        with Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=to_terminal
        ) as self._drawing:
            size = console.size
            while True:
                if console.size != size:  # the terminal has wrapped the last frame again
                    size = console.size
                    console.clear()
                picture = frame(self._board.snapshot(), size.width, size.height - 1)
                self._drawing.update(picture, refresh=True)
                await anyio.sleep(REFRESH)


def frame(snapshot: dict[str, Any], width: int, height: int) -> RenderableType:
    """A run in so many columns and lines."""
    return Group(*fitted(blocks(snapshot, width), width, height))


# -- plain lines


def plain_lines(snapshot: dict[str, Any]) -> Iterator[str]:
    """A run in plain lines: what it waits for, and one line for each pipeline."""
    yield from waited_for(snapshot)
    for pipeline in snapshot["pipelines"]:
        yield plain_line(pipeline, snapshot["now"])


def plain_line(pipeline: dict[str, Any], now: float) -> str:
    """One pipeline in one line."""
    offsets = ", ".join(
        f"{stream['stream']}@{stream['committed']}"
        for stream in pipeline["streams"]
        if stream["committed"] is not None
    )
    behind = f" ({', '.join(_behind(pipeline))})" if pipeline["lag"] else ""
    line = (
        f"{pipeline['name']}: {pipeline['phase']}{_unlike_phase(pipeline)}"
        f"{_trouble(pipeline['condition'])}, {pipeline['rate']:,.0f}/s, "
        f"{pipeline['settled']:,} settled, lag {_number(pipeline['lag'])}{behind}, "
        f"{pipeline['in_flight']:,} in flight, {plural(_batches(pipeline), 'batch', 'batches')}, "
        f"{pipeline['failed']:,} failed, committed {offsets or 'nothing'}"
    )
    reasons = pipeline.get("reasons", [])[:REASONS]
    return "; ".join([line, *(_reason(reason, now) for reason in reasons)])


def _unlike_phase(pipeline: dict[str, Any]) -> str:
    """The condition, such as `, failing`, if it differs from the phase."""
    name = pipeline["condition"]["name"]
    return "" if name == pipeline["phase"] else f", {name}"


def _trouble(condition: dict[str, Any]) -> str:
    """Why something is wrong with a pipeline, in brackets."""
    shown = condition["level"] in {"warn", "bad"} and condition["name"] not in EXPLAINED
    if not shown or not condition["why"]:
        return ""
    return f" ({shortened(one_line(condition['why']), REASON_LENGTH)})"


def waited_for(snapshot: dict[str, Any], *, least: float = 0.0) -> Iterator[str]:
    """Pipelines that are starting, and connections that are restored for `least` seconds or more.

    At the start of a run each connection is made for a moment, which is nothing to tell of.
    """
    for name in snapshot.get("starting", []):
        yield f"{name}: starting for {short_duration(snapshot['uptime'])}"
    if any(worker["restarts"] for worker in snapshot.get("workers", ())):
        yield from (it["detail"] for it in snapshot["not_ready"] if not it["pipeline"])
    yield from _away(snapshot, least)


def _away(snapshot: dict[str, Any], least: float = 0.0) -> Iterator[str]:
    """Connections that are restored. Those of one kind with one reason are one line: when a broker
    is away, every worker lacks one for each partition."""
    together: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for away in snapshot.get("away", []):
        if away["for"] >= least:
            alike = (away["kind"], away["state"], one_line(away["reason"]))
            together.setdefault(alike, []).append(away)
    for (kind, state, reason), found in together.items():
        names = [*dict.fromkeys(away["name"] for away in found)]
        seconds = short_duration(max(away["for"] for away in found))
        what = f"{kind if len(names) == 1 else kind + 's'} {listed(names)}"
        yield f"{what}: {state} for {seconds}{': ' if reason else ''}{reason}"


def _behind(pipeline: dict[str, Any]) -> list[str]:
    """The age of the lag, and the time until the pipeline has caught up, if known."""
    parts = []
    if pipeline["lag_seconds"]:
        parts.append(f"oldest {short_duration(pipeline['lag_seconds'])}")
    if pipeline["catch_up"] is not None:
        parts.append(f"caught up in {short_duration(pipeline['catch_up'])}")
    return parts


def _reason(reason: dict[str, Any], now: float, length: int = REASON_LENGTH) -> str:
    """`2 ZeroDivisionError in load: division by zero (2 retried, last 3 s ago)`."""
    what = f"{reason['error']} " if reason["error"] else ""
    text = one_line(reason["text"]).removeprefix(f"{reason['error']}: ")
    text = shortened(text, length)
    outcomes = [
        f"{reason[key]:,} {key.replace('_', '-')}"
        for key in ("retried", "dead_lettered", "discarded", "halted")
        if reason[key]
    ]
    last = f"last {short_duration(max(0.0, now - reason['last']))} ago"
    place = reason["handler"] or reason["stage"]
    where = f"in {place}: " if place else ""
    return f"{reason['attempts']:,} {what}{where}{text} ({', '.join([*outcomes, last])})"


# -- the view


def blocks(snapshot: dict[str, Any], width: int) -> list[Block]:
    """The blocks of a snapshot, which has pipelines with problems first."""
    away = [flow([(text, "bold red")], width, indent=2) for text in _away(snapshot)]
    starting = [
        flow([(name, "bold"), ("starting", "yellow")], width, indent=2)
        for name in snapshot.get("starting", [])
    ]
    found = [Block(0, "connection", away), Block(0, "pipeline", starting)]
    for place, pipeline in enumerate(snapshot["pipelines"]):
        if place:
            found.append(Block(LAST, "", [flow([("", "")], width)]))
        found += _pipeline(pipeline, snapshot["now"], width, place)
    if workers := snapshot.get("workers"):
        lines = table(WORKER, list(map(_worker, workers)), width)
        found.append(Block(5, "worker", lines[1], lines[0]))
    events = [_event(it, snapshot["now"], width) for it in snapshot.get("events", [])[:EVENTS]]
    return [*found, Block(LAST, "", events)]


def _event(event: dict[str, Any], now: float, width: int) -> list[Text]:
    about = f"{event['pipeline']}: " if event["pipeline"] else ""
    times = f" ({event['count']:,} times)" if event.get("count", 1) > 1 else ""
    ago = f"{short_duration(max(0.0, now - event['at']))} ago"
    style = {"error": "red", "warning": "yellow"}.get(event["level"], "dim")
    return flow(
        [(ago, "dim"), (f"{about}{one_line(event['text'])}{times}", style)], width, indent=2
    )


def _pipeline(pipeline: dict[str, Any], now: float, width: int, place: int) -> list[Block]:
    """The blocks of a pipeline: its head and main problem for every pipeline before details."""
    reasons = [
        _indented(flow([(_reason(it, now, 2 * width), _recent(it, now))], width - 2, indent=2))
        for it in pipeline.get("reasons", [])
    ]
    stages = table(STAGE, list(map(_stage, pipeline["stages"])), width)
    behind = sorted(pipeline["streams"], key=lambda it: (-(it["lag"] or 0), it["stream"]))
    streams = table(STREAM, list(map(_stream, behind)), width)
    rank = 10 * (place + 1)
    return [
        Block(0, "pipeline", [flow(_head(pipeline), width, indent=2)]),
        Block(1, "", _why(pipeline["condition"], width)),
        Block(1, "reason", reasons[:1]),
        Block(rank, "reason", reasons[1:REASONS]),
        Block(rank + 4, "reason", reasons[REASONS:]),
        Block(rank + 1, "figure", [[line] for line in _figures(pipeline, width)]),
        Block(rank + 2, "stage", stages[1], stages[0]),
        *([] if pipeline["lag"] is None else [Block(rank + 3, "stream", streams[1], streams[0])]),
    ]


def _why(condition: dict[str, Any], width: int) -> list[list[Text]]:
    """The problem of a pipeline, if it has one."""
    if condition["level"] not in {"warn", "bad"} or not condition["why"]:
        return []
    style = STYLES[condition["level"]]
    return [_indented(flow([(one_line(condition["why"]), style)], width - 2, indent=2))]


def _indented(lines: list[Text]) -> list[Text]:
    for line in lines:
        line.pad_left(2)
    return lines


def _recent(reason: dict[str, Any], now: float) -> str:
    return "red" if now - reason["last"] < RECENT else "yellow"


STYLES = {"good": "green", "warn": "yellow", "bad": "bold red"}
"""The style of each level of a condition."""


def _head(pipeline: dict[str, Any]) -> Iterator[Span]:
    """The figures of a pipeline that are always shown."""
    phase, condition = pipeline["phase"], pipeline["condition"]
    style = STYLES.get(condition["level"], "dim")
    yield pipeline["name"], "bold"
    since = f"{phase} for {short_duration(pipeline['phase_seconds'])}"
    yield since + _unlike_phase(pipeline), style
    if pipeline["lag"] is not None:
        behind = _behind(pipeline) if pipeline["lag"] else []
        lagging = any(stream["lagging"] for stream in pipeline["streams"])
        yield ", ".join([f"lag {pipeline['lag']:,}", *behind]), "bold red" if lagging else ""
    yield f"{pipeline['rate']:,.0f}/s", ""
    if pipeline["failed"]:
        yield f"{pipeline['failed']:,} failed", "red" if condition["level"] == "bad" else "yellow"
    if pipeline["elsewhere"]:
        yield f"{plural(len(pipeline['elsewhere']), 'partition')} elsewhere", "dim"


def _figures(pipeline: dict[str, Any], width: int) -> Iterator[Text]:
    history = pipeline["history"]
    fill = f"{pipeline['in_flight']:,} of {pipeline['max_in_flight']:,}"
    outcomes = ", ".join(
        f"{count:,} {name.replace('_', '-')}" for name, count in pipeline["outcomes"].items()
    )
    lag = pipeline["lag"]
    rows: list[tuple[str, str, list[float]]] = [
        *([] if lag is None else [("lag", plural(lag, "message"), history["lag"])]),
        ("rate", f"{pipeline['rate']:,.0f} messages/s", history["rate"]),
        ("in flight", fill, history["in_flight"]),
    ]
    value_width = max(len(value) for _, value, _ in rows)
    chart_width = min(CHART_WIDTH, width - 11 - value_width - 2)
    for label, value, points in rows:
        spans: list[Span] = [(f"{label:9}", "dim"), (value.rjust(value_width), "")]
        if chart_width > 0 and points:
            spans.append((sparkline(points, chart_width), "cyan"))
        yield from flow(spans, width, indent=11)
    settled: list[Span] = [("settled  ", "dim"), (f"{pipeline['settled']:,}", ""), (outcomes, "")]
    yield from flow(settled, width, indent=11)
    if pipeline["failed"] or pipeline["retried"]:
        failed: list[Span] = [
            ("failed   ", "dim"),
            (f"{pipeline['failed']:,}", ""),
            (f"{pipeline['retried']:,} retried", ""),
        ]
        yield from flow(failed, width, indent=11)


STAGE = ("stage", "busy", "handled", "per s", "waiting", "batches", "per batch", "failed")
WORKER = (
    "worker",
    "state",
    "partitions",
    "per s",
    "settled",
    "failed",
    "in flight",
    "CPU",
    "memory",
)
STREAM = ("stream", "received", "committed", "commit age", "lag", "credits")


def _stage(stage: dict[str, Any]) -> list[Span]:
    busy = stage["busy"]
    colour = "red" if busy > 0.9 else "yellow" if busy > 0.6 else "green"
    return [
        (stage["name"], ""),
        (f"{busy:.0%}", colour),
        (f"{stage['handled']:,}", ""),
        (f"{stage['rate']:,.0f}", ""),
        (f"{stage['waiting']:,}", ""),
        (f"{stage['batches']:,}" if stage["batches"] else "", ""),
        (f"{stage['mean_batch']:,.0f}" if stage["mean_batch"] else "", ""),
        (f"{stage['failed']:,}", "red" if stage["failed"] else ""),
    ]


def _worker(worker: dict[str, Any]) -> list[Span]:
    cpu, memory = worker["cpu"], worker["memory"]
    number = f"{worker['number']}{' (new)' if worker['replacement'] else ''}"
    state = f"{worker['state']} for {short_duration(worker['seconds'])}"
    return [
        (number, ""),
        (state, "" if worker["state"] == "ready" else "yellow"),
        (f"{len(worker['partitions']):,}", ""),
        (f"{worker['rate']:,.0f}", ""),
        (f"{worker['settled']:,}", ""),
        (f"{worker['failed']:,}", "red" if worker["failed"] else ""),
        (f"{worker['in_flight']:,}", ""),
        ("-" if cpu is None else f"{cpu:.0%}", ""),
        ("-" if memory is None else short_size(memory), ""),
    ]


def _stream(stream: dict[str, Any]) -> list[Span]:
    age = stream["commit_age"]
    return [
        (stream["stream"], ""),
        (_offset(stream["received"]), ""),
        (_offset(stream["committed"]), ""),
        ("-" if age is None else short_duration(age), ""),
        (_number(stream["lag"]), "bold red" if stream["lagging"] else ""),
        (_number(stream["credits"]), ""),
    ]


def sparkline(values: list[float], width: int = CHART_WIDTH) -> str:
    """The last `width` values as a row of bars."""
    shown = values[-width:]
    top = max(shown, default=0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(7, int(max(value, 0) / top * 7.999))] for value in shown)


def _batches(pipeline: dict[str, Any]) -> int:
    return sum(stage["batches"] for stage in pipeline["stages"])


def _offset(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"
