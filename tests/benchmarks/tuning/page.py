"""The tables and curves of docs/tuning.md, from what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.curves import Curve, draw

Recorded = dict[str, Any]
BEGIN, END = "<!-- measured: {} -->", "<!-- end of {} -->"


@dataclass(frozen=True)
class Picture:
    """A figure of a sweep, drawn as curves into docs/images/tuning-NAME.svg."""

    name: str
    sweep: str
    figure: str
    title: str
    across: str
    decades: bool = False
    only: tuple[str, ...] = ()


PICTURES = (
    Picture("workers", "workers", "cpu", "CPU µs a message, each waits 5 ms", "concurrency",
            decades=True),
    Picture("batches", "batches", "cpu", "CPU µs a message", "size", decades=True),
    Picture("latency", "latency", "p50_ms", "Milliseconds to the batch handler, median", "size",
            decades=True),
    Picture("window", "window", "share", "Throughput, % of the best of each", "max_in_flight"),
    Picture("memory", "window", "peak_mib", "Memory of the process, MiB", "max_in_flight",
            only=("4 batches of 500",)),
    Picture("credit", "credit", "share", "Throughput, % of the best of each", "credit"),
)  # fmt: skip

TABLES = {
    "workers": ("cpu",),
    "batches": ("cpu",),
    "latency": ("p50_ms", "p99_ms"),
    "window": ("share", "peak_mib"),
    "credit": ("share",),
}
"""What the table of each sweep says of each series, beside the value of the option."""

TITLES = {
    "rate": "messages/s",
    "cpu": "CPU µs a message",
    "share": "% of the best",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "peak_mib": "MiB",
}


def figure(name: str, measured: dict[str, float], best: float) -> float:
    """A figure of a point; `best` is the highest rate of its series."""
    rate = measured["messages"] / measured["seconds"]
    if name == "rate":
        return rate
    if name == "share":
        return 100 * rate / best
    if name == "cpu":
        return 1e6 * measured["cpu"] / measured["messages"]
    return measured[name]


def figures(series: dict[str, dict[str, float]], name: str) -> list[tuple[int, float]]:
    """A figure of every point of a series."""
    best = max(each["messages"] / each["seconds"] for each in series.values())
    return [(int(point), figure(name, each, best)) for point, each in series.items()]


def curves(recorded: Recorded, picture: Picture) -> list[Curve]:
    return [
        Curve(name, figures(series, picture.figure))
        for name, series in recorded[picture.sweep].items()
        if not picture.only or name in picture.only
    ]


def drawn(recorded: Recorded, picture: Picture) -> str:
    return draw(picture.title, picture.across, curves(recorded, picture), decades=picture.decades)


def table(recorded: Recorded, sweep: str, option: str) -> str:
    """The sweep as Markdown: a row for each point, the figures of each series beside each other."""
    columns = [
        (f"{name}: {TITLES[each]}", dict(figures(series, each)))
        for name, series in recorded[sweep].items()
        for each in TABLES[sweep]
    ]
    points = sorted({point for _, found in columns for point in found})
    lines = [
        f"| `{option}` | {' | '.join(title for title, _ in columns)} |",
        f"| ---: |{' ---: |' * len(columns)}",
    ]
    for point in points:
        cells = [rounded(found[point]) if point in found else "" for _, found in columns]
        lines.append(f"| {point:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rounded(value: float) -> str:
    """Two significant digits, or three above 100: more would not be seen again."""
    if value >= 100:
        digits = len(f"{value:.0f}") - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def written(text: str, recorded: Recorded, options: dict[str, str]) -> str:
    """The page with the tables of what was recorded."""
    for sweep, option in options.items():
        begin, end = BEGIN.format(sweep), END.format(sweep)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{table(recorded, sweep, option)}\n\n{end}{after}"
    return text
