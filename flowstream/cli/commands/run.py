"""`flowstream run`: pipelines from their modules, until they end or are told to."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, redrawn, report, say, warn
from flowstream.cli.parser.options import (
    BROKER,
    DEFAULT_URL,
    LOGIN_OPTIONS,
    MOST_NUMBER,
    NOT_TAKEN,
    Json,
    LogFormat,
    LogLevel,
    Optional,
    command_with_optional_values,
    examples,
    run_async,
)

if TYPE_CHECKING:
    from flowstream.cli.connection.broker_choice import Choice
    from flowstream.cli.publishing.feed import FeedPlan
    from flowstream.cli.running.supervisor import Outcome, Plan
    from flowstream.pipeline import Pipeline, Place

IDLE_SECONDS = "2"
HTTP_ADDRESS = "127.0.0.1:9464"
LOOPBACK = "127.0.0.1"
WATCHING, SPEED = "Watching it", "Speed"
"""Headings of options in the help on a terminal."""
OPTIONAL = {
    "--until-idle": Optional(IDLE_SECONDS, r"-?[0-9.]+", "number of seconds"),
    "--http": Optional(HTTP_ADDRESS, r"(.*:)?[0-9]+", "address (HOST:PORT or :PORT)"),
}
FEED_RATE = 500
THREADS_GRACE = 1.0
"""Seconds that threads get to end after the run has ended."""


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
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
        ),
    )(run)


def run(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:NAME]",
            help="Modules whose pipelines to run; NAME for one of several.",
        ),
    ],
    *,
    until_idle: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="[SECONDS]",
            envvar="FLOWSTREAM_UNTIL_IDLE",
            help="End when everything published so far is settled and nothing came for this "
            f"long; {IDLE_SECONDS} seconds without a value.",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:PORT]",
            envvar="FLOWSTREAM_HTTP",
            help=f"Serve the live page, /metrics, /livez and /readyz; {HTTP_ADDRESS} without a "
            "value.",
            rich_help_panel=WATCHING,
        ),
    ] = None,
    http_control: Annotated[
        bool,
        typer.Option(
            "--http-control",
            envvar="FLOWSTREAM_HTTP_CONTROL",
            help="Let the live page pause, resume and limit pipelines, and replay dead letters: "
            "whoever reaches the address may.",
            rich_help_panel=WATCHING,
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="FLOWSTREAM_URL",
            metavar="URL",
            help="The broker: rabbitmq-stream://user:password@host:port/vhost. Without one: the "
            "embedded broker that runs in this folder, or localhost, or an embedded one where "
            "nothing listens there.",
            rich_help_panel=BROKER,
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            envvar="FLOWSTREAM_EMBEDDED",
            help="Start a broker for this run, on a free port; its data is in .flowstream/. Other "
            "commands in this folder use it too.",
            rich_help_panel=BROKER,
        ),
    ] = False,
    create: Annotated[
        bool,
        typer.Option(
            "--create",
            envvar="FLOWSTREAM_CREATE",
            help="Create missing streams; with the embedded broker that is always so.",
            rich_help_panel=BROKER,
        ),
    ] = False,
    feed: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[@RATE]",
            help="Publish this file into the stream of the first pipeline, over and over, RATE "
            f"messages a second ({FEED_RATE} unless said).",
        ),
    ] = None,
    discard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM@OFFSET",
            help="Settle this message, and no other, as discarded when it comes, without decoding "
            "or handling it. Repeatable; of a super stream, name the partition.",
        ),
    ] = None,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            envvar="FLOWSTREAM_PLAIN",
            help="Lines instead of the live view on a terminal.",
            rich_help_panel=WATCHING,
        ),
    ] = False,
    tune_gc: Annotated[
        bool,
        typer.Option(
            "--tune-gc/--no-tune-gc",
            envvar="FLOWSTREAM_TUNE_GC",
            help="Collect garbage rarely while running: up to twice as fast.",
            rich_help_panel=SPEED,
        ),
    ] = True,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            envvar="FLOWSTREAM_LOG_LEVEL",
            case_sensitive=False,
            metavar="LEVEL",
            help="The least severe log records to write: debug, info (the story of the run), "
            "warning, error or critical.",
            rich_help_panel=WATCHING,
        ),
    ] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="FLOWSTREAM_LOG_FORMAT",
            case_sensitive=False,
            metavar="FORMAT",
            help="How standard error is written: text, or json and logfmt, a record per line.",
            rich_help_panel=WATCHING,
        ),
    ] = LogFormat.TEXT,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Drain and start again when a source below this folder changes (extra reload).",
        ),
    ] = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    tracing: Annotated[
        bool,
        typer.Option(
            "--tracing",
            help="Draw OpenTelemetry spans; start it with opentelemetry-instrument, which exports "
            "them.",
            rich_help_panel=WATCHING,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run pipelines until they end, Ctrl-C or SIGTERM.

    The first signal drains: what was received is finished, committed and verified, within the
    pipeline's drain_timeout. A second one ends at once. Of a module every pipeline runs that it
    declares. Options that are not given come from the environment, .env and pyproject.toml
    (flowstream config). Exit codes: flowstream exit-codes.
    """
    from flowstream.cli.configuration.overrides import log_overrides, override, unused
    from flowstream.cli.output import logs
    from flowstream.cli.pipelines.load import imported_by, load_pipelines
    from flowstream.cli.running.supervisor import Plan

    if reload:
        raise typer.Exit(_reload(as_json=json))
    logs.configure(log_level, log_format)
    _check_words(context.meta[NOT_TAKEN])
    pipelines = load_pipelines(targets)
    for pipeline in pipelines.values():
        log_overrides(pipeline.name, override(pipeline))
        pipeline.check()
    for said in unused(pipeline.name for pipeline in pipelines.values()):
        note(said)
    for target, other in imported_by(targets):
        module = other.declaration.module
        note(
            f"{target} imports the pipeline {other.name!r} of {module}, which is not run; to run "
            f"it too: flowstream run {target} {module}"
        )
    _check_chains(targets, pipelines)
    plan = Plan(
        pipelines=pipelines,
        broker=_broker(context, url, embedded),
        create=create,
        feed=None if feed is None else _feed_plan(feed, list(pipelines.values())),
        until_idle=until_idle,
        http=None if http is None else parse_address(http),
        http_control=http_control,
        live=redrawn(sys.stderr) and not plain and not json and log_format is LogFormat.TEXT,
        tune_gc=tune_gc,
        with_parent=with_parent,
        tracing=tracing,
        discard=_places(discard or []),
    )
    outcome = run_async(_supervise, plan)
    _tell(outcome, plan, as_json=json)


async def _supervise(plan: Plan) -> Outcome:
    from flowstream.cli.running.supervisor import Supervisor

    return await Supervisor(plan).run()


def _broker(context: typer.Context, url: str | None, embedded: bool) -> Choice:
    """The broker that is wanted; a flag goes before the environment, and that before files."""
    from flowstream.cli.configuration.settings import Origin, settings
    from flowstream.cli.connection.broker_choice import Choice, Source, decide
    from flowstream.cli.connection.connect import connection, local

    def origin(option: str) -> Origin | None:
        if _is_flag(context, option):
            return Origin("flag", f"--{option.replace('_', '-')}")
        return settings().origins.get(option)

    named = origin("url")
    source = decide(named, origin("embedded") if embedded else None)
    if source is Source.EMBEDDED:
        for option in LOGIN_OPTIONS:
            if _is_flag(context, option):
                raise CommandError(
                    f"--embedded and {origin(option)} exclude each other: the broker of a run "
                    "listens on this machine only, without TLS",
                    ExitCode.USAGE,
                )
        return Choice(source, local(DEFAULT_URL), str(named or ""))
    return Choice(source, connection(url), str(named or ""))


def _is_flag(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _reload(*, as_json: bool) -> int:
    from flowstream.cli.running.reload import reload

    if as_json:
        raise CommandError(
            "--reload and --json exclude each other: a run that is started again has no one result",
            ExitCode.USAGE,
        )
    return run_async(reload, sys.argv[1:])


def _check_words(not_taken: Mapping[str, str]) -> None:
    """Refuse a word behind an option that is neither its value nor a module with pipelines."""
    for word, option in not_taken.items():
        if not _has_pipelines(word.partition(":")[0]):
            raise CommandError(
                f"{option} {word!r} is no {OPTIONAL[option].what}, and no module with a pipeline "
                "either",
                ExitCode.USAGE,
            )


def _has_pipelines(module: str) -> bool:
    from flowstream.cli.pipelines.load import load_module, pipelines_of

    try:
        return bool(pipelines_of(load_module(module)))
    except CommandError as error:
        if error.exit_code is ExitCode.MODULE_MISSING:
            return False
        raise


def _feed_plan(text: str, pipelines: list[Pipeline]) -> FeedPlan:
    from flowstream.cli.pipelines.stream_topology import wiring
    from flowstream.cli.publishing.feed import FeedPlan
    from flowstream.cli.publishing.records import guess_format, is_pipe

    file, rate = parse_feed(text)
    streams = [stream for pipeline in pipelines for stream in wiring(pipeline).reads]
    if not streams:
        raise CommandError("--feed: no pipeline of this run reads a stream", ExitCode.USAGE)
    if is_pipe(file):
        raise CommandError("--feed needs a file: a pipe cannot be read twice", ExitCode.USAGE)
    return FeedPlan(streams[0], file, guess_format(file), rate=rate, loop=True, by_line=True)


def _check_chains(targets: list[str], pipelines: dict[str, Pipeline]) -> None:
    """Refuse pipelines that dead-letter in a circle; warn of other circles."""
    from flowstream.cli.pipelines.load import neighbours
    from flowstream.cli.pipelines.stream_topology import chains, endless, told, wiring

    running = {pipeline.name for pipeline in pipelines.values()}
    for chain in chains(wiring(each) for each in neighbours(targets)):
        names = {edge.pipeline for edge in chain}
        if endless(chain) and names <= running:
            raise CommandError(
                f"{told(chain)}; dead-letter into another stream", ExitCode.DECLARATION
            )
        if names & running:
            warn(told(chain))


def _places(texts: list[str]) -> tuple[Place, ...]:
    from flowstream.errors import ConfigurationError
    from flowstream.pipeline import parse_places

    try:
        return parse_places(texts, "--discard")
    except ConfigurationError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def parse_feed(text: str) -> tuple[str, float]:
    """FILE@RATE or FILE; what follows the last @ is a rate only if it is a number."""
    file, _, rate = text.rpartition("@")
    try:
        number = float(rate)
    except ValueError:
        return text, float(FEED_RATE)
    if not file or number < 0:
        return text, float(FEED_RATE)
    if not 0 < number <= MOST_NUMBER:
        raise CommandError(
            f"--feed {text!r}: a rate is more than 0 and at most {MOST_NUMBER:,.0f} messages a "
            "second",
            ExitCode.USAGE,
        )
    return file, number


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or PORT, also as the page's address; loopback where no host is given."""
    host, _, port = text.removeprefix("http://").removesuffix("/").rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or set(host) & set("/@ "):
        raise CommandError(
            f"--http {text!r} is no address; write HOST:PORT or :PORT", ExitCode.USAGE
        )
    return host.strip("[]") or LOOPBACK, int(port)


def _tell(outcome: Outcome, plan: Plan, *, as_json: bool) -> None:
    from flowstream.cli.pipelines.stream_topology import wiring
    from flowstream.cli.running import summary

    if as_json:
        results = [summary.as_json(result, target) for target, result in outcome.results.items()]
        print_json(results)
    else:
        for target, result in outcome.results.items():
            dead_letters = wiring(plan.pipelines[target]).dead_letters
            idle = plan.until_idle is not None
            for line in summary.summarize(result, target, idle=idle, dead_letters=dead_letters):
                say(line)
        for target in sorted(outcome.unopened):
            say(f"{plan.pipelines[target].name}: stopped before it was running")
    for result in outcome.results.values():
        if (warning := summary.warning(result)) is not None:
            note(warning, style="bold red")
    code = ExitCode.OK
    if outcome.error is not None:
        code = report(outcome.error)
    if outcome.forced:
        note("ended by a second signal, before everything was settled: the rest is replayed")
        code = ExitCode.FORCED
    _leave(code)


def _leave(code: ExitCode) -> NoReturn:
    """Exit, also when a handler still hangs in a thread that the interpreter would wait for."""
    deadline = time.monotonic() + THREADS_GRACE
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    raise typer.Exit(code)
