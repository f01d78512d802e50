"""The live view of a run: drawn in place on a terminal, a plain line now and then otherwise.

Both read the monitor's board, so they show the same figures as the live page and the metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from flowstream.cli.output import note, plural, short_duration, stderr
from flowstream.cli.safe_text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flowstream.monitor import Board

REFRESH = 0.5
"""Seconds between frames on a terminal."""

PLAIN_INTERVAL = 10.0
"""Seconds between lines where there is no terminal."""

_BARS = "▁▂▃▄▅▆▇█"
CHART_WIDTH = 40


async def show(board: Board, *, live: bool) -> None:
    """Show the board until cancelled."""
    if live:
        await _show_live(board)
    else:
        await _show_lines(board)


async def _show_lines(board: Board) -> None:
    while True:
        await anyio.sleep(PLAIN_INTERVAL)
        for pipeline in board.snapshot()["pipelines"]:
            note(plain_line(pipeline))


async def _show_live(board: Board) -> None:
    from rich.live import Live

    with Live(console=stderr(), auto_refresh=False, transient=True) as live:
        while True:
            live.update(frame(board.snapshot()), refresh=True)
            await anyio.sleep(REFRESH)


def plain_line(pipeline: dict[str, Any]) -> str:
    """One pipeline in one line."""
    offsets = ", ".join(
        f"{stream['stream']}@{stream['committed']}"
        for stream in pipeline["streams"]
        if stream["committed"] is not None
    )
    committed = offsets or "nothing"
    return (
        f"{pipeline['name']}: {pipeline['phase']}, {pipeline['rate']:,.0f}/s, "
        f"{pipeline['settled']:,} settled, lag {_number(pipeline['lag'])}, "
        f"{pipeline['in_flight']:,} in flight, {_batches(pipeline):,} batches, "
        f"{pipeline['failed']:,} failed, committed {committed}"
    )


def frame(snapshot: dict[str, Any]) -> RenderableType:
    """Everything, for a terminal."""
    from rich.console import Group

    parts: list[RenderableType] = []
    for pipeline in snapshot["pipelines"]:
        parts += [_header(pipeline), _figures(pipeline), _stages(pipeline)]
        if pipeline["lag"] is not None:
            parts.append(_streams(pipeline))
        parts += _failures(pipeline)
    return Group(*parts)


def _header(pipeline: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    phase = pipeline["phase"]
    style = {"running": "green", "paused": "yellow"}.get(phase, "yellow")
    return Text.assemble(
        (pipeline["name"], "bold"),
        "  ",
        (phase, style),
        f" for {short_duration(pipeline['phase_seconds'])}",
    )


def _figures(pipeline: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    history = pipeline["history"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="cyan", no_wrap=True)
    table.add_row("rate", f"{pipeline['rate']:,.0f} messages/s", sparkline(history["rate"]))
    if pipeline["lag"] is not None:
        table.add_row("lag", plural(pipeline["lag"], "message"), sparkline(history["lag"]))
    fill = f"{pipeline['in_flight']:,} of {pipeline['max_in_flight']:,}"
    table.add_row("in flight", fill, sparkline(history["in_flight"]))
    outcomes = ", ".join(
        f"{count:,} {name.replace('_', '-')}" for name, count in pipeline["outcomes"].items()
    )
    table.add_row("settled", f"{pipeline['settled']:,}", outcomes)
    table.add_row("failed", f"{pipeline['failed']:,}", f"{pipeline['retried']:,} tried again")
    return table


def _stages(pipeline: dict[str, Any]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("stage")
    for column in ("busy", "handled", "per s", "waiting", "batches", "per batch", "failed"):
        table.add_column(column, justify="right")
    for stage in pipeline["stages"]:
        busy = stage["busy"]
        colour = "red" if busy > 0.9 else "yellow" if busy > 0.6 else "green"
        table.add_row(
            stage["name"],
            f"[{colour}]{busy:.0%}[/]",
            f"{stage['handled']:,}",
            f"{stage['rate']:,.0f}",
            f"{stage['waiting']:,}",
            f"{stage['batches']:,}" if stage["batches"] else "",
            f"{stage['mean_batch']:,.0f}" if stage["mean_batch"] else "",
            f"[red]{stage['failed']:,}[/]" if stage["failed"] else "0",
        )
    return table


def _streams(pipeline: dict[str, Any]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("stream")
    for column in ("received", "committed", "commit age", "lag", "credits"):
        table.add_column(column, justify="right")
    for stream in pipeline["streams"]:
        age = stream["commit_age"]
        table.add_row(
            stream["stream"],
            _offset(stream["received"]),
            _offset(stream["committed"]),
            "-" if age is None else short_duration(age),
            _number(stream["lag"]),
            _number(stream["credits"]),
        )
    return table


def _failures(pipeline: dict[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    return [
        Text(
            visible(
                f"{failure['phase']} failed in {failure['stage']}: {failure['error']} "
                f"({plural(failure['messages'], 'message')})"
            ),
            style="red",
        )
        for failure in pipeline["failures"][:3]
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
