"""What commands share: options, help with examples, optional values, and the event loop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

T = TypeVar("T")

DEFAULT_URL = "rabbitmq-stream://guest:guest@localhost:5552/%2f"

RICH_HELP = sys.stdout.isatty()
"""Whether help is drawn with Rich; a pipe gets plain text."""

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="FLOWSTREAM_URL",
        metavar="URL",
        help="The broker: rabbitmq-stream://user:password@host:port/vhost "
        "(rabbitmq-stream+tls:// for TLS).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example per line, drawn as they stand."""
    if RICH_HELP:
        return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}" for line in lines)])
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def new_app(name: str | None = None, help: str = "", epilog: str | None = None) -> typer.Typer:
    """A Typer application with this project's habits."""
    return typer.Typer(
        name=name,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode="rich" if RICH_HELP else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def fill_optional_values(args: list[str], defaults: Mapping[str, str]) -> list[str]:
    """Give options without a value theirs.

    `defaults` maps an option to the value it has when nothing that fits follows it. What follows
    fits when it starts with a digit, a colon or a dot, as numbers and addresses do.
    """
    filled: list[str] = []
    for position, arg in enumerate(args):
        if arg == "--":
            return filled + args[position:]
        following = args[position + 1] if position + 1 < len(args) else ""
        if arg in defaults and not (following and following[0] in "0123456789:."):
            filled.append(f"{arg}={defaults[arg]}")
        else:
            filled.append(arg)
    return filled


def command_with_optional_values(**defaults: str) -> type[TyperCommand]:
    """A command class whose options `name=value` may stand without a value."""
    flags = {"--" + name.replace("_", "-"): value for name, value in defaults.items()}

    class OptionalValues(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, fill_optional_values(args, flags))

    return OptionalValues


def run_async(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an async function on asyncio, with uvloop where it is installed."""
    import anyio

    use_uvloop = find_spec("uvloop") is not None
    return anyio.run(main, *args, backend="asyncio", backend_options={"use_uvloop": use_uvloop})


async def on_signal(action: Callable[[], None]) -> None:
    """Call `action` for every SIGINT or SIGTERM, until cancelled."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            action()
