"""Options that several commands have, and the question before something that cannot be undone."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note
from flowstream.cli.parser.parsing import parse_duration, parse_size

MAX_NUMBER = 1e9
"""The largest number of seconds, or of messages a second."""

BROKER, LOGIN = "Broker", "TLS and login"
"""Headings of options in the help on a terminal."""


class SaslMechanism(StrEnum):
    PLAIN = "PLAIN"
    EXTERNAL = "EXTERNAL"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    LOGFMT = "logfmt"


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="FLOWSTREAM_URL",
        metavar="URL",
        help="The broker: rabbitmq-stream://user:password@host:port/vhost "
        "(rabbitmq-stream+tls:// for TLS).",
        show_default="guest at localhost:5552",
        rich_help_panel=BROKER,
    ),
]
TlsCa = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        envvar="FLOWSTREAM_TLS_CA",
        metavar="FILE",
        help="Certificate authorities to trust instead of the system's (PEM).",
        rich_help_panel=LOGIN,
    ),
]
TlsCertificate = Annotated[
    str | None,
    typer.Option(
        "--tls-certificate",
        envvar="FLOWSTREAM_TLS_CERTIFICATE",
        metavar="FILE",
        help="The client's certificate, for mutual TLS (PEM).",
        rich_help_panel=LOGIN,
    ),
]
TlsKey = Annotated[
    str | None,
    typer.Option(
        "--tls-key",
        envvar="FLOWSTREAM_TLS_KEY",
        metavar="FILE",
        help="The key of the client's certificate (PEM).",
        rich_help_panel=LOGIN,
    ),
]
Sasl = Annotated[
    SaslMechanism | None,
    typer.Option(
        "--sasl",
        envvar="FLOWSTREAM_SASL",
        case_sensitive=False,
        metavar="HOW",
        help="The login: PLAIN (user and password) or EXTERNAL (the client's certificate).",
        rich_help_panel=LOGIN,
    ),
]
LOGIN_OPTIONS = {
    "tls_ca": TlsCa,
    "tls_certificate": TlsCertificate,
    "tls_key": TlsKey,
    "sasl": Sasl,
}
"""Options of every command that connects, by their key in the settings."""

ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management",
        envvar="FLOWSTREAM_MANAGEMENT",
        metavar="URL",
        help="RabbitMQ's management API. Default: port 15672 of the broker's host (15671 for TLS).",
        rich_help_panel=BROKER,
    ),
]
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
