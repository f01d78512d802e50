"""`flowstream run`: arguments, options and help. What it does is in running/start.py."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from flowstream.cli.configuration.options import LogFormat, LogLevel
from flowstream.cli.parser.command import (
    OptionalValue,
    command_with_optional_values,
    new_app,
)
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import BROKER, MONITOR_ADDRESS, Json, setting
from flowstream.cli.parser.parsing import (
    FEED_RATE,
    parse_address,
    parse_feed,
    parse_workers,
)

IDLE_SECONDS = "2"
WATCHING, SPEED = "Watching it", "Speed"
"""Headings of options in the help on a terminal."""
OPTIONAL = {
    "--until-idle": OptionalValue(IDLE_SECONDS, r"-?[0-9.]+", "a number of seconds"),
    "--http": OptionalValue(MONITOR_ADDRESS, r"(.*:)?[0-9]+", "an address (HOST:PORT or :PORT)"),
}

app: Final = new_app(work="flowstream.cli.running.start")


@app.command(
    cls=command_with_optional_values(OPTIONAL),
    epilog=examples(
        "flowstream run pipelines.orders",
        "flowstream run pipelines.orders --embedded",
        "flowstream run pipelines.orders:pipeline pipelines.audit --http",
        "flowstream run pipelines.orders --http --http-control",
        "flowstream run pipelines.orders --until-idle",
        "flowstream run pipelines.orders --http --feed pipelines/data/cdnow_orders.csv.gz@500",
        "flowstream run pipelines.orders --url rabbitmq-stream://me:secret@rabbit:5552/shop",
        "flowstream run pipelines.orders --log-level info --log-format json",
        "flowstream run pipelines.orders --reload",
        "flowstream run pipelines.orders --discard orders@42000",
        "flowstream run pipelines.sales --workers 4 --http",
    ),
)
def run(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:NAME]",
            help="A module whose pipelines to run; NAME selects one of several.",
        ),
    ],
    *,
    workers: Annotated[
        Any,
        setting("workers", heading=SPEED, metavar="N|auto", parser=parse_workers),
    ] = None,
    until_idle: Annotated[
        float | None,
        setting("until_idle", f"; {IDLE_SECONDS} without a value", min=0, metavar="[SECONDS]"),
    ] = None,
    http: Annotated[
        Any,
        setting(
            "http",
            f"; {MONITOR_ADDRESS} without a value",
            heading=WATCHING,
            metavar="[HOST:PORT]",
            parser=parse_address,
        ),
    ] = None,
    http_control: Annotated[
        bool,
        setting("http_control", heading=WATCHING),
    ] = False,
    url: Annotated[
        str | None,
        setting(
            "url",
            "; by default the embedded broker that runs in this folder, else localhost, else a "
            "new embedded broker",
            heading=BROKER,
            metavar="URL",
        ),
    ] = None,
    embedded: Annotated[
        bool,
        setting("embedded", heading=BROKER),
    ] = False,
    create: Annotated[
        bool,
        setting("create", heading=BROKER),
    ] = False,
    feed: Annotated[
        Any,
        typer.Option(
            metavar="FILE[@RATE]",
            parser=parse_feed,
            help="Publish this file repeatedly to the stream of the first pipeline, at RATE "
            f"messages a second ({FEED_RATE:g} without one).",
        ),
    ] = None,
    discard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM@OFFSET",
            help="Settle this message as discarded, without decoding or handling it. Repeatable. "
            "For a super stream, name the partition.",
        ),
    ] = None,
    plain: Annotated[
        bool,
        setting("plain", heading=WATCHING),
    ] = False,
    tune_gc: Annotated[
        bool,
        setting("tune_gc", heading=SPEED, off="--no-tune-gc"),
    ] = True,
    log_level: Annotated[
        LogLevel,
        setting("log_level", heading=WATCHING, case_sensitive=False, metavar="LEVEL"),
    ] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat,
        setting("log_format", heading=WATCHING, case_sensitive=False, metavar="FORMAT"),
    ] = LogFormat.TEXT,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Drain and restart when a source file in this folder changes (extra reload).",
        ),
    ] = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    worker: Annotated[int | None, typer.Option("--worker", hidden=True)] = None,
    tracing: Annotated[
        bool,
        typer.Option(
            "--tracing",
            help="Create OpenTelemetry spans. Start the run with opentelemetry-instrument, which "
            "exports them.",
            rich_help_panel=WATCHING,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run pipelines until they end, Ctrl-C or SIGTERM.

    With --workers, that many processes run the pipelines and share the partitions of super streams;
    SIGHUP or flowstream workers restart replaces them one by one.

    The first signal drains: received messages are finished, committed and verified, within the
    pipeline's drain_timeout. A second signal ends the run at once. Every pipeline that a module
    declares is run. Options that are not given come from the environment, .env and pyproject.toml
    (see flowstream config). For exit codes, see flowstream exit-codes.
    """
