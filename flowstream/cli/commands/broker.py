"""`flowstream broker`: the embedded broker alone, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, redrawn, short_duration, short_size, stderr
from flowstream.cli.output.progress import doing
from flowstream.cli.parser.options import examples, on_signal, run_async
from flowstream.texts import plural

if TYPE_CHECKING:
    from flowstream.broker import Broker, BrokerStatistics

REFRESH = 0.5


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream broker",
            "flowstream broker --data /var/lib/flowstream --port 5553",
            "flowstream broker --host 0.0.0.0 --user orders:secret",
        )
    )(broker)


def broker(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="NUMBER", help="0 takes a free one.")
    ] = 5552,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that keeps the streams.")
    ] = Path(".flowstream"),
    memory: Annotated[
        bool, typer.Option("--memory", help="Keep nothing: streams end with the broker.")
    ] = False,
    user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:PASSWORD", help="Who may connect; else guest:guest. Repeatable."
        ),
    ] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Run the embedded broker: one machine, the real protocol, nothing to install.

    It is for development and tests. Any client of RabbitMQ Streams can use it; for production,
    point --url at RabbitMQ.
    """
    users = dict(_user(text) for text in user or [])
    if not users and not _is_loopback(host):
        raise CommandError(
            f"{host} can be reached from other machines: say who may connect with "
            "--user NAME:PASSWORD",
            ExitCode.USAGE,
        )
    run_async(_serve, host, port, None if memory else data, users or None, with_parent)


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise CommandError("--user wants NAME:PASSWORD", ExitCode.USAGE)
    return name, password


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(
    host: str, port: int, data: Path | None, users: dict[str, str] | None, with_parent: bool
) -> None:
    import anyio

    from flowstream.broker import Broker

    started = time.monotonic()
    running = Broker(host, port, data=data, users=users)
    async with AsyncExitStack() as stack:
        with doing(f"opening the streams in {data}"):
            await stack.enter_async_context(running)
        group = await stack.enter_async_context(anyio.create_task_group())
        await group.start(on_signal, group.cancel_scope.cancel)
        kept = f"data in {data}" if data else "in memory"
        note(f"broker listening on {host}:{running.port}, {kept}; Ctrl-C ends it")
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
    """Whoever started us holds the other end of our standard input."""
    import anyio

    assert isinstance(scope, anyio.CancelScope)
    await anyio.wait_readable(sys.stdin)
    scope.cancel()


async def _show_status(running: Broker) -> None:
    """What it does, rewritten in place."""
    import anyio
    from rich.console import Group
    from rich.live import Live

    from flowstream.cli.view.fold import flow

    console = stderr()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            figures = [(text, "") for text in status(running.statistics())]
            live.update(Group(*flow(figures, console.width)), refresh=True)
            await anyio.sleep(REFRESH)


def status(figures: BrokerStatistics) -> list[str]:
    """What the broker does now, in a few words each."""
    return [
        f"{plural(figures.connections, 'connection')}, {plural(figures.streams, 'stream')}",
        f"in {figures.rate_in:,.0f}/s",
        f"out {figures.rate_out:,.0f}/s",
        f"{figures.unconfirmed:,} unconfirmed",
        short_size(figures.bytes_used),
    ]
