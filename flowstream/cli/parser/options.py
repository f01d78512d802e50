"""Options that several commands have, and the question before something that cannot be undone."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from flowstream.cli.configuration.options import (
    SaslMechanism,
    command_line_options,
    flag,
    variable,
)
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note
from flowstream.cli.parser.parsing import parse_address, parse_duration, parse_size

MAX_NUMBER = 1e9
"""The largest number of seconds, or of messages a second."""

MONITOR_ADDRESS = "127.0.0.1:9464"
"""Where `run --http` without an address listens, and other commands look for it."""

BROKER, LOGIN = "Broker", "TLS and login"
"""Headings of options in the help on a terminal."""
SETTINGS = dict(command_line_options())


def setting(
    key: str, more: str = "", *, heading: str | None = None, off: str = "", **options: Any
) -> Any:
    """The flag of a setting: its name, its variable and its help are those of the setting.

    `more` is added to the help; `off` is the flag that switches it off.
    """
    text = SETTINGS[key].text
    return typer.Option(
        f"{flag(key)}/{off}" if off else flag(key),
        envvar=variable(key),
        help=f"{text[0].upper()}{text[1:]}{more}.",
        rich_help_panel=heading,
        **options,
    )


Url = Annotated[
    str,
    setting("url", heading=BROKER, metavar="URL", show_default="guest at localhost:5552"),
]
TlsCa = Annotated[str | None, setting("tls_ca", heading=LOGIN, metavar="FILE")]
TlsCertificate = Annotated[str | None, setting("tls_certificate", heading=LOGIN, metavar="FILE")]
TlsKey = Annotated[str | None, setting("tls_key", heading=LOGIN, metavar="FILE")]
Sasl = Annotated[
    SaslMechanism | None, setting("sasl", heading=LOGIN, metavar="HOW", case_sensitive=False)
]
LOGIN_OPTIONS = {
    "tls_ca": TlsCa,
    "tls_certificate": TlsCertificate,
    "tls_key": TlsKey,
    "sasl": Sasl,
}
"""Options of every command that connects, by their key in the settings."""

ManagementUrl = Annotated[str | None, setting("management", heading=BROKER, metavar="URL")]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="SIZE",
        parser=parse_size,
        help="Delete the oldest segments of a stream above this size, such as 20GB.",
    ),
]
MaxAge = Annotated[
    timedelta | None,
    typer.Option(
        "--max-age",
        metavar="TIME",
        parser=parse_duration,
        help="Delete segments older than this, such as 30m, 12h or 7d.",
    ),
]
SegmentBytes = Annotated[
    int | None,
    typer.Option(
        "--segment-bytes",
        metavar="SIZE",
        parser=parse_size,
        help="The size of a segment, such as 100MB.",
    ),
]
IfMissing = Annotated[bool, typer.Option("--if-missing", help="Do nothing if it exists already.")]
IfExists = Annotated[bool, typer.Option("--if-exists", help="Do nothing if it does not exist.")]
Force = Annotated[bool, typer.Option("--force", help="Do not check whether it is running.")]
RunAddresses = Annotated[
    list[Any] | None,
    typer.Option(
        "--http",
        metavar="HOST:PORT",
        parser=parse_address,
        envvar=variable("http"),
        help=f"The live page of a run (its --http). Default: {MONITOR_ADDRESS}. Repeatable.",
    ),
]
Watch = Annotated[
    float,
    typer.Option("--watch", min=0, metavar="SECONDS", help="How long to watch for commits."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone.

    Any answer but yes, or Ctrl-C, ends the command with FORCED. Without a terminal there is nobody
    to ask, so `--yes` is required.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} There is no terminal to ask on: add --yes", ExitCode.USAGE)
    try:
        sure = typer.confirm(question)
    except typer.Abort:
        sure = False
    if not sure:
        note("nothing was changed")
        raise typer.Exit(ExitCode.FORCED)


def retention_arguments(
    max_bytes: int | None, max_age: timedelta | None, segment_bytes: int | None
) -> dict[str, Any]:
    """The arguments for a new stream, from its options."""
    return {
        "max_length_bytes": max_bytes,
        "max_age": max_age,
        "max_segment_size_bytes": segment_bytes,
    }
