"""The settings of the command line, written once (see flowstream/schema.py).

What `flowstream config` shows, the variables, the keys in pyproject.toml, the flags and their help,
and docs/configuration.md follow from these fields. The options of TLS and of connections are those
of `Tls` and of the client's `Environment`.

To add a setting, add a field; a command gets its flag by `setting("name")` (parser/options.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from flowstream.schema import Option, Rule, a, options_of, seconds
from flowstream.tls import Tls

DEFAULT_URL = "rabbitmq-stream://guest:guest@localhost:5552/%2f"
"""The client's own default, written again: help has to show it without importing the client."""
PREFIX = "FLOWSTREAM_"
TLS = "tls_"
CONNECTION = ("heartbeat", "frame_max", "connect_timeout", "request_timeout")
"""The options of the client's `Environment` that are settings."""


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


URL = a(str, "an address (a URL)", secret=True)
"""It may hold a password. How it is parsed is checked where the settings are read."""
TEXT = Rule("a string", lambda value: isinstance(value, str))

MOST_WORKERS = 256
AUTO = "auto"


def is_worker_count(value: object) -> bool:
    """Whether it is a number of worker processes, or `auto`."""
    if value == AUTO:
        return True
    if type(value) is not str or not (value.isascii() and value.isdecimal() and len(value) < 9):
        return False
    return 0 < int(value) <= MOST_WORKERS


WORKERS = Rule(f"a whole number from 1 to {MOST_WORKERS}, or auto", is_worker_count)


@dataclass(frozen=True, kw_only=True)
class CommandLineOptions:
    """What can be set for commands; None: not set."""

    url: Annotated[
        str | None,
        URL,
        "the broker: rabbitmq-stream://user:password@host:port/vhost (rabbitmq-stream+tls:// for "
        "TLS)",
    ] = field(default=None, repr=False)
    management: Annotated[
        str | None,
        URL,
        "RabbitMQ's management API: http://user:password@host:15672; by default port 15672 of the "
        "broker's host (15671 for TLS)",
    ] = field(default=None, repr=False)
    sasl: Annotated[
        SaslMechanism, "the login: PLAIN (user and password) or EXTERNAL (the client's certificate)"
    ] = SaslMechanism.PLAIN
    http: Annotated[
        str | None, TEXT, "serve the live page, /metrics, /livez and /readyz at HOST:PORT"
    ] = None
    http_control: Annotated[
        bool,
        "allow everyone who can open the live page to pause, resume and limit pipelines, and to "
        "replay dead letters",
    ] = False
    log_level: Annotated[
        LogLevel,
        "the lowest level of log records to write: debug, info (the events of the run), warning, "
        "error or critical",
    ] = LogLevel.WARNING
    log_format: Annotated[
        LogFormat,
        "the format of standard error: text, or json or logfmt with one record per line",
    ] = LogFormat.TEXT
    until_idle: Annotated[
        float | None,
        seconds(above=False),
        "end when everything published so far is settled and nothing arrived for so many seconds",
    ] = None
    embedded: Annotated[
        bool,
        "start an embedded broker for the run, on a free port, with its data in .flowstream/; "
        "other commands in this folder use it too",
    ] = False
    create: Annotated[
        bool, "create missing streams; with an embedded broker they are always created"
    ] = False
    plain: Annotated[bool, "print lines instead of the live view on a terminal"] = False
    workers: Annotated[
        str | None,
        WORKERS,
        "run so many worker processes, which share the partitions of super streams; auto: one for "
        "each core, and at most one for each partition",
    ] = None
    tune_gc: Annotated[
        bool, "run the garbage collector less often during a run: up to twice as fast"
    ] = True


def command_line_options() -> Iterator[tuple[str, Option]]:
    """The settings that commands may have flags for, by key, in the order of the pages."""
    for key, option in options_of(CommandLineOptions).items():
        if key == "sasl":
            yield from ((TLS + name, option) for name, option in options_of(Tls).items())
        yield key, option


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + key.upper()


def flag(key: str) -> str:
    """The option of a setting on a command line."""
    return f"--{key.replace('_', '-')}"
