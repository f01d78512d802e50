"""`flowstream broker`: the embedded broker, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
from rich.console import Group
from rich.live import Live

from flowstream.broker import Broker, BrokerStatistics
from flowstream.cli.event_loop import on_signal, run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, redrawn, short_duration, short_size, stderr
from flowstream.cli.output.progress import doing
from flowstream.cli.view.fold import flow
from flowstream.client import Address
from flowstream.texts import plural

REFRESH = 0.5


def broker(
    *, host: str, port: int, data: Path, memory: bool, user: list[Any] | None, with_parent: bool
) -> None:
    users = dict(user or [])
    if not users and not _is_loopback(host):
        raise CommandError(
            f"{host} is reachable from other machines; give the users who may connect with "
            "--user NAME:PASSWORD",
            ExitCode.USAGE,
        )
    run_async(_serve, host, port, None if memory else data, users or None, with_parent)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(
    host: str, port: int, data: Path | None, users: dict[str, str] | None, with_parent: bool
) -> None:
    started = time.monotonic()
    running = Broker(host, port, data=data, users=users)
    async with AsyncExitStack() as stack:
        with doing(f"opening the streams in {data}"):
            await stack.enter_async_context(running)
        group = await stack.enter_async_context(anyio.create_task_group())
        await group.start(on_signal, group.cancel_scope.cancel)
        kept = f"data in {data}" if data else "in memory"
        where = Address(host, running.port)
        note(f"broker listening on {where}, {kept}; press Ctrl-C to stop it")
        if with_parent:
            group.start_soon(_until_parent_ends, group.cancel_scope)
        if redrawn(sys.stderr):
            group.start_soon(_show_status, running)
    figures = running.statistics()
    note(
        f"broker stopped after {short_duration(time.monotonic() - started)}: "
        f"{plural(figures.messages_in, 'message')} in, {figures.messages_out:,} out"
    )


async def _until_parent_ends(scope: object) -> None:
    """End when standard input ends, which is a pipe from the process that started the broker."""
    assert isinstance(scope, anyio.CancelScope)
    await anyio.wait_readable(sys.stdin)
    scope.cancel()


async def _show_status(running: Broker) -> None:
    """Show the figures of the broker, rewritten in place."""
    console = stderr()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            figures = [(text, "") for text in status(running.statistics())]
            live.update(Group(*flow(figures, console.width)), refresh=True)
            await anyio.sleep(REFRESH)


def status(figures: BrokerStatistics) -> list[str]:
    """The figures of the broker, each in a few words."""
    return [
        f"{plural(figures.connections, 'connection')}, {plural(figures.streams, 'stream')}",
        f"in {figures.rate_in:,.0f}/s",
        f"out {figures.rate_out:,.0f}/s",
        f"{figures.unconfirmed:,} unconfirmed",
        short_size(figures.bytes_used),
    ]
