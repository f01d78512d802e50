"""`flowstream top`: running pipelines, as their monitors show them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import anyio
from rich.console import Group, RenderableType
from rich.live import Live

from flowstream.cli.event_loop import on_signal, run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import (
    note,
    print_json,
    print_json_line,
    redrawn,
    say,
    short_duration,
    stdout,
)
from flowstream.cli.readers.monitor_client import DEFAULT_ADDRESS, MonitorUnavailable, snapshot
from flowstream.cli.usage.top import LIVE_INTERVAL, PLAIN_INTERVAL
from flowstream.cli.view.fold import Block, fitted, flow
from flowstream.cli.view.live_view import blocks, plain_lines
from flowstream.client import Address

ROUNDING = 0.001
"""Seconds by which the start of a run, computed from its age, may differ between snapshots."""


def top(
    *, http: list[Any] | None, once: bool, interval: float | None, plain: bool, json: bool
) -> None:
    watches = [Watch(Address(*each)) for each in http or [DEFAULT_ADDRESS]]
    if once:
        run_async(_look, watches)
        _print_once(watches, as_json=json)
        return
    live = redrawn(sys.stdout) and not plain and not json
    every = interval or (LIVE_INTERVAL if live else PLAIN_INTERVAL)
    run_async(_follow, watches, every, live, json)


class Watch:
    """The state of one run: running, gone, or restarted. Pure: the clock is an argument.

    `board` is its last snapshot. `gone_since` is when it first did not answer, and `why` the
    reason.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.board: dict[str, Any] | None = None
        self.gone_since: float | None = None
        self.why: str = ""
        self._started: float | None = None

    @property
    def where(self) -> str:
        return f"http://{self.address}/"

    def saw(self, board: dict[str, Any]) -> str | None:
        """Record an answer; returns a note if something changed."""
        started = float(board.get("now", 0.0)) - float(board.get("uptime", 0.0))
        before, self._started = self._started, started
        was_gone, self.gone_since, self.board = self.gone_since is not None, None, board
        if before is not None and abs(started - before) > ROUNDING:
            return f"the run at {self.where} was restarted: its counts begin at 0"
        return f"the run at {self.where} answers again" if was_gone else None

    def missed(self, why: str, now: float) -> str | None:
        """Record a missing answer; returns a note if it is the first."""
        first, self.why = self.gone_since is None, why
        if first:
            self.gone_since = now
        if not first:
            return None
        what = "no run answers" if self.board is None else "the run no longer answers"
        return f"{what} at {self.where} ({why}); waiting for it"

    def document(self) -> dict[str, Any]:
        """The state as JSON, with the last figures of a run that is gone."""
        state = "running" if self.gone_since is None else "gone"
        board = self.board or {}
        if state == "gone":
            return {"monitor": self.where, "state": state, "why": self.why, **board}
        return {"monitor": self.where, "state": state, **board}


async def _look(watches: Sequence[Watch]) -> dict[str, str]:
    """Ask every monitor once, concurrently. Returns notes by address."""
    notes: dict[str, str | None] = {}

    async def one(watch: Watch) -> None:
        try:
            board = await anyio.to_thread.run_sync(snapshot, watch.address, abandon_on_cancel=True)
        except MonitorUnavailable as error:
            notes[watch.where] = watch.missed(str(error), anyio.current_time())
        else:
            notes[watch.where] = watch.saw(board)

    async with anyio.create_task_group() as group:
        for watch in watches:
            group.start_soon(one, watch)
    return {where: line for where, line in notes.items() if line is not None}


def _print_once(watches: Sequence[Watch], *, as_json: bool) -> None:
    if as_json:
        print_json([watch.document() for watch in watches])
    else:
        for watch in watches:
            for line in lines(watch):
                say(line)
    gone = [watch for watch in watches if watch.gone_since is not None]
    if gone:
        raise CommandError(
            f"no run answers at {gone[0].where} ({gone[0].why}); start it with --http, and give "
            "its address here with --http HOST:PORT",
            ExitCode.CONNECTION,
        )


async def _follow(watches: Sequence[Watch], every: float, live: bool, as_json: bool) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(on_signal, group.cancel_scope.cancel)
        await (_draw if live else _print)(watches, every, as_json)


async def _print(watches: Sequence[Watch], every: float, as_json: bool) -> None:
    while True:
        for line in (await _look(watches)).values():
            note(line)
        for watch in watches:
            if as_json:
                print_json_line(watch.document())
            elif watch.gone_since is None:
                for line in lines(watch):
                    say(line)
        await anyio.sleep(every)


async def _draw(watches: Sequence[Watch], every: float, _: bool) -> None:
    notes: dict[str, str] = {}
    console = stdout()
    with Live(console=console, auto_refresh=False, screen=True) as screen:
        while True:
            notes |= await _look(watches)
            now, size = anyio.current_time(), console.size
            screen.update(picture(watches, notes, now, size.width, size.height), refresh=True)
            await anyio.sleep(every)


def lines(watch: Watch) -> list[str]:
    """A run in plain lines, one for each pipeline."""
    if watch.board is None or watch.gone_since is not None:
        return []
    return [*plain_lines(watch.board)] or [
        f"the run at {watch.where} has not started a pipeline yet"
    ]


def picture(
    watches: Sequence[Watch], notes: dict[str, str], now: float, width: int, height: int
) -> RenderableType:
    """All runs in so many columns and lines. `notes` has the last note on each."""
    found: list[Block] = []
    for watch in watches:
        gone = watch.gone_since is not None
        state = flow([(_state(watch, now), "bold red" if gone else "dim")], width, indent=2)
        if not gone and watch.where in notes:
            state += flow([(notes[watch.where], "yellow")], width, indent=2)
        found.append(Block(0, "run", [state]))
        if watch.board is not None:
            shown_blocks = blocks(watch.board, width)
            found += map(_dimmed, shown_blocks) if gone else shown_blocks
    return Group(*fitted(found, width, height - 1), *flow([("Ctrl-C ends", "dim")], width))


def _dimmed(block: Block) -> Block:
    """The block in the style of a run that is gone."""
    for lines in (block.heading, *block.items):
        for line in lines:
            line.stylize("dim")
    return block


def _state(watch: Watch, now: float) -> str:
    if watch.gone_since is None:
        uptime = 0.0 if watch.board is None else float(watch.board["uptime"])
        return f"{watch.where}  up for {short_duration(uptime)}"
    age = short_duration(now - watch.gone_since)
    last = "" if watch.board is None else "; below are its last figures"
    return f"{watch.where}  no answer for {age} ({watch.why}){last}"
