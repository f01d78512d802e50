"""`flowstream run`: pipelines from their modules, until they end or a signal stops them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, NoReturn

import typer

from flowstream.cli.configuration.overrides import log_overrides, override, unused
from flowstream.cli.configuration.settings import Origin, settings
from flowstream.cli.connection.broker_choice import BrokerChoice, Source, decide
from flowstream.cli.connection.connect import connection, local
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output import logs
from flowstream.cli.output.console import note, print_json, redrawn, report, say, warn
from flowstream.cli.parser.command import (
    WORDS_AFTER,
    OptionalValue,
    command_with_optional_values,
    new_app,
)
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import BROKER, LOGIN_OPTIONS, Json, LogFormat, LogLevel
from flowstream.cli.parser.parsing import FEED_RATE, invalid, parse_address, parse_feed
from flowstream.cli.pipelines.load import (
    imported_by,
    load_module,
    load_pipelines,
    pipelines_of,
    pipelines_of_modules,
)
from flowstream.cli.pipelines.stream_topology import chain_text, chains, endless, topology_of
from flowstream.cli.publishing.feed import FeedPlan
from flowstream.cli.publishing.records import guess_format, is_pipe
from flowstream.cli.running import summary
from flowstream.cli.running.reload import reload
from flowstream.cli.running.supervisor import Outcome, Plan, Supervisor
from flowstream.client import DEFAULT_URL
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Pipeline, Place, parse_places

IDLE_SECONDS = "2"
HTTP_ADDRESS = "127.0.0.1:9464"
WATCHING, SPEED = "Watching it", "Speed"
"""Headings of options in the help on a terminal."""
OPTIONAL = {
    "--until-idle": OptionalValue(IDLE_SECONDS, r"-?[0-9.]+", "a number of seconds"),
    "--http": OptionalValue(HTTP_ADDRESS, r"(.*:)?[0-9]+", "an address (HOST:PORT or :PORT)"),
}
THREADS_GRACE = 1.0
"""Seconds for threads to end after the run."""


app: Final = new_app()


def parse_message(text: str) -> Place:
    """A message, from `STREAM@OFFSET`."""
    try:
        return parse_places([text], "--discard")[0]
    except ConfigurationError:
        raise invalid(
            text,
            "is not STREAM@OFFSET, such as orders@42; for a super stream name the partition, such "
            "as orders-1@42",
        ) from None


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
    until_idle: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="[SECONDS]",
            envvar="FLOWSTREAM_UNTIL_IDLE",
            help="End when everything published so far is settled and nothing arrived for so many "
            f"seconds; {IDLE_SECONDS} without a value.",
        ),
    ] = None,
    http: Annotated[
        Any,
        typer.Option(
            metavar="[HOST:PORT]",
            parser=parse_address,
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
            help="Allow everyone who can open the live page to pause, resume and limit pipelines, "
            "and to replay dead letters.",
            rich_help_panel=WATCHING,
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="FLOWSTREAM_URL",
            metavar="URL",
            help="The broker: rabbitmq-stream://user:password@host:port/vhost. Default: the "
            "embedded "
            "broker that runs in this folder, else localhost, else a new embedded broker.",
            rich_help_panel=BROKER,
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            envvar="FLOWSTREAM_EMBEDDED",
            help="Start an embedded broker for this run, on a free port, with its data in "
            ".flowstream/. Other commands in this folder use it too.",
            rich_help_panel=BROKER,
        ),
    ] = False,
    create: Annotated[
        bool,
        typer.Option(
            "--create",
            envvar="FLOWSTREAM_CREATE",
            help="Create missing streams. With an embedded broker they are always created.",
            rich_help_panel=BROKER,
        ),
    ] = False,
    feed: Annotated[
        Any,
        typer.Option(
            metavar="FILE[@RATE]",
            parser=parse_feed,
            help="Publish this file repeatedly to the stream of the first pipeline, at RATE "
            "messages "
            f"a second ({FEED_RATE:g} without one).",
        ),
    ] = None,
    discard: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="STREAM@OFFSET",
            parser=parse_message,
            help="Settle this message as discarded, without decoding or handling it. Repeatable. "
            "For a super stream, name the partition.",
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
            help="Run the garbage collector less often: up to twice as fast.",
            rich_help_panel=SPEED,
        ),
    ] = True,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            envvar="FLOWSTREAM_LOG_LEVEL",
            case_sensitive=False,
            metavar="LEVEL",
            help="The lowest level of log records to write: debug, info (the events of the run), "
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
            help="The format of standard error: text, or json or logfmt with one record per line.",
            rich_help_panel=WATCHING,
        ),
    ] = LogFormat.TEXT,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Drain and restart when a source file in this folder changes (extra reload).",
        ),
    ] = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
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

    The first signal drains: received messages are finished, committed and verified, within the
    pipeline's drain_timeout. A second signal ends the run at once. Every pipeline that a module
    declares is run. Options that are not given come from the environment, .env and pyproject.toml
    (see flowstream config). For exit codes, see flowstream exit-codes.
    """
    if reload:
        raise typer.Exit(_reload(as_json=json))
    logs.configure(log_level, log_format)
    _check_words(context.meta[WORDS_AFTER])
    pipelines = load_pipelines(targets)
    for pipeline in pipelines.values():
        log_overrides(pipeline.name, override(pipeline))
        pipeline.check()
    for text in unused(pipeline.name for pipeline in pipelines.values()):
        note(text)
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
        feed=None if feed is None else _feed_plan(feed[0], feed[1], list(pipelines.values())),
        until_idle=until_idle,
        http=http,
        http_control=http_control,
        live=redrawn(sys.stderr) and not plain and not json and log_format is LogFormat.TEXT,
        tune_gc=tune_gc,
        with_parent=with_parent,
        tracing=tracing,
        discard=tuple(dict.fromkeys(discard or [])),
    )
    outcome = run_async(_supervise, plan)
    _tell(outcome, plan, as_json=json)


async def _supervise(plan: Plan) -> Outcome:
    return await Supervisor(plan).run()


def _broker(context: typer.Context, url: str | None, embedded: bool) -> BrokerChoice:
    """The broker to use, by the option, variable or file with the highest precedence."""

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
                    f"--embedded and {origin(option)} exclude each other: an embedded broker "
                    "listens only on this machine, without TLS",
                    ExitCode.USAGE,
                )
        return BrokerChoice(source, local(DEFAULT_URL), str(named or ""))
    return BrokerChoice(source, connection(url), str(named or ""))


def _is_flag(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _reload(*, as_json: bool) -> int:
    if as_json:
        raise CommandError(
            "--reload and --json exclude each other: restarted runs have no single result",
            ExitCode.USAGE,
        )
    return run_async(reload, sys.argv[1:])


def _check_words(not_taken: Mapping[str, str]) -> None:
    """Refuse a word after an option that is neither its value nor a module with pipelines."""
    for word, option in not_taken.items():
        if not _has_pipelines(word.partition(":")[0]):
            raise CommandError(
                f"{word!r} after {option} is neither {OPTIONAL[option].what} nor a module with a "
                "pipeline",
                ExitCode.USAGE,
            )


def _has_pipelines(module: str) -> bool:
    try:
        return bool(pipelines_of(load_module(module)))
    except CommandError as error:
        if error.exit_code is ExitCode.MODULE_MISSING:
            return False
        raise


def _feed_plan(file: str, rate: float, pipelines: list[Pipeline]) -> FeedPlan:
    streams = [stream for pipeline in pipelines for stream in topology_of(pipeline).reads]
    if not streams:
        raise CommandError("--feed: no pipeline of this run reads a stream", ExitCode.USAGE)
    if is_pipe(file):
        raise CommandError(
            "--feed needs a file, because a pipe cannot be read again", ExitCode.USAGE
        )
    return FeedPlan(streams[0], file, guess_format(file), rate=rate, loop=True, by_line=True)


def _check_chains(targets: list[str], pipelines: dict[str, Pipeline]) -> None:
    """Refuse pipelines that dead-letter in a circle, and warn of other circles."""
    running = {pipeline.name for pipeline in pipelines.values()}
    for chain in chains(topology_of(each) for each in pipelines_of_modules(targets)):
        names = {edge.pipeline for edge in chain}
        if endless(chain) and names <= running:
            raise CommandError(
                f"{chain_text(chain)}; dead-letter to another stream", ExitCode.DECLARATION
            )
        if names & running:
            warn(chain_text(chain))


def _tell(outcome: Outcome, plan: Plan, *, as_json: bool) -> None:
    if as_json:
        results = [summary.as_json(result, target) for target, result in outcome.results.items()]
        print_json(results)
    else:
        for target, result in outcome.results.items():
            dead_letters = topology_of(plan.pipelines[target]).dead_letters
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
        note("ended by a second signal; messages that are not settled are delivered again")
        code = ExitCode.FORCED
    _leave(code)


def _leave(code: ExitCode) -> NoReturn:
    """Exit, even if a handler still blocks a thread that the interpreter would wait for."""
    deadline = time.monotonic() + THREADS_GRACE
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    raise typer.Exit(code)
