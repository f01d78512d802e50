"""What `flowstream run` does: its options to a plan, the plan to a run, the outcome to text."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

import typer

from flowstream.cli.configuration.options import AUTO, LogFormat, LogLevel, flag
from flowstream.cli.configuration.overrides import log_overrides, override, unused
from flowstream.cli.configuration.settings import Origin, settings
from flowstream.cli.connection.broker_choice import BrokerChoice, Source, decide
from flowstream.cli.connection.connect import connection, local
from flowstream.cli.event_loop import receive_hangup, run_async
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code, root_cause
from flowstream.cli.output import logs
from flowstream.cli.output.console import note, redrawn, warn
from flowstream.cli.parser.command import WORDS_AFTER
from flowstream.cli.parser.options import LOGIN_OPTIONS
from flowstream.cli.parser.parsing import invalid
from flowstream.cli.pipelines.load import (
    imported_by,
    load_module,
    load_pipelines,
    pipelines_of,
    pipelines_of_modules,
)
from flowstream.cli.pipelines.sink_records import clashes
from flowstream.cli.pipelines.stream_topology import chain_text, chains, endless, topology_of
from flowstream.cli.publishing.feed import FeedPlan
from flowstream.cli.publishing.records import guess_format, is_pipe
from flowstream.cli.running import reload as reloading
from flowstream.cli.running.ending import ended, leave, report_run
from flowstream.cli.running.supervisor import Plan, supervise
from flowstream.cli.workers.link import Link
from flowstream.cli.workers.parent import Parent, ParentPlan
from flowstream.cli.workers.results import Ended, report_of, reporting
from flowstream.cli.workers.worker import Worker, check_shared
from flowstream.client import DEFAULT_URL, Address
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Pipeline, Place, parse_places


def run(
    context: typer.Context,
    targets: list[str],
    *,
    workers: str | None,
    until_idle: float | None,
    http: tuple[str, int] | None,
    http_control: bool,
    url: str | None,
    embedded: bool,
    create: bool,
    feed: tuple[str, float] | None,
    discard: list[str] | None,
    plain: bool,
    tune_gc: bool,
    log_level: LogLevel,
    log_format: LogFormat,
    reload: bool,
    with_parent: bool,
    worker: int | None,
    tracing: bool,
    json: bool,
) -> None:
    """Run the pipelines of the modules, and exit with the code of the outcome."""
    if worker is not None:  # SIGHUP is for its parent, also while this process imports its modules
        signal.signal(signal.SIGHUP, lambda *_: None)
    if workers is None or worker is not None:
        receive_hangup()  # a parent does so once it can tell what the signal means
    if reload:
        raise typer.Exit(_reload(as_json=json, workers=workers))
    messages = parse_messages(discard)
    live = redrawn(sys.stderr) and not plain and not json and log_format is LogFormat.TEXT
    if workers is not None and worker is None:
        logs.configure(log_level, log_format)
        _check_words(context.meta[WORDS_AFTER])
        leading = ParentPlan(
            count=None if workers == AUTO else int(workers),
            broker=_broker(context, url, embedded),
            http=None if http is None else Address(*http),
            live=live,
            prefixed=log_format is LogFormat.TEXT,
        )
        report_run(run_async(_lead, leading), as_json=json)
    link = None if worker is None else Link(worker)
    logs.configure(log_level, log_format, worker=None if link is None else link.number)
    with reporting(link):
        _check_words(context.meta[WORDS_AFTER])
        pipelines = _loaded(targets, quiet=link is not None and link.number > 1)
        lent = None if link is None else _worker(link, pipelines)
        choice = (
            _broker(context, url, embedded)
            if lent is None
            else lent.choice(lambda: connection(url))
        )
        feeds = link is None or link.number == 1  # several workers publish the file once
        plan = Plan(
            pipelines=pipelines,
            broker=choice,
            create=create,
            feed=None if feed is None or not feeds else _feed_plan(*feed, [*pipelines.values()]),
            until_idle=until_idle,
            http=None if http is None or link is not None else Address(*http),
            http_control=http_control,
            live=live,
            tune_gc=tune_gc,
            with_parent=with_parent,
            tracing=tracing,
            discard=messages,
            worker=lent,
        )
        outcome = run_async(supervise, plan)
    if link is not None:
        link.finish(report_of(outcome, plan.pipelines))
        leave(exit_code(root_cause(outcome.errors[0])) if outcome.errors else ExitCode.OK)
    report_run(ended(outcome, plan), as_json=json)


def _loaded(targets: list[str], *, quiet: bool) -> dict[str, Pipeline]:
    """The pipelines of the modules, checked, with the options that settings override.

    Without `quiet`, notes tell what may not be meant.
    """
    pipelines = load_pipelines(targets)
    for pipeline in pipelines.values():
        log_overrides(pipeline.name, override(pipeline))
        pipeline.check()
    if quiet:
        return pipelines
    for text in unused(pipeline.name for pipeline in pipelines.values()):
        note(text)
    for target, other in imported_by(targets):
        module = other.declaration.module
        note(
            f"{target} imports the pipeline {other.name!r} of {module}, which is not run; to run "
            f"it too: flowstream run {target} {module}"
        )
    _check_chains(targets, pipelines)
    for name, text in clashes(pipelines.values()):
        raise CommandError(
            f"pipeline {name!r} > {text}; give one of them another name or reference=",
            ExitCode.DECLARATION,
        )
    return pipelines


def _worker(link: Link, pipelines: dict[str, Pipeline]) -> Worker:
    """This process as a worker, with the broker of its parent."""
    if link.several:
        check_shared(pipelines.values())
    needs_broker = any(topology_of(each).needs_broker for each in pipelines.values())
    targets = {pipeline.name: target for target, pipeline in pipelines.items()}
    drain_timeout = max(each.options.drain_timeout for each in pipelines.values())
    said = {"needs_broker": needs_broker, "targets": targets, "drain_timeout": drain_timeout}
    link.send_now({"kind": "loaded"} | said)
    return Worker(link, link.receive_now("broker"))


def parse_messages(texts: list[str] | None) -> tuple[Place, ...]:
    """The messages that `--discard` names, each once."""
    return tuple(dict.fromkeys(map(parse_message, texts or [])))


def parse_message(text: str) -> Place:
    """A message, from `STREAM@OFFSET`."""
    try:
        return parse_places([text], "--discard")[0]
    except ConfigurationError:
        raise invalid(
            text,
            "is not STREAM@OFFSET, such as orders@42; for a super stream name the partition, such "
            "as orders-1@42",
            option="--discard",
        ) from None


async def _lead(plan: ParentPlan) -> Ended:
    return await Parent(plan).run()


def _broker(context: typer.Context, url: str | None, embedded: bool) -> BrokerChoice:
    """The broker to use, by the option, variable or file with the highest precedence."""

    def origin(option: str) -> Origin | None:
        if _is_flag(context, option):
            return Origin("flag", flag(option))
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


def _reload(*, as_json: bool, workers: str | None) -> int:
    if workers is not None:
        raise CommandError(
            "--reload and --workers exclude each other; flowstream workers restart restarts the "
            "workers with changed modules",
            ExitCode.USAGE,
        )
    if as_json:
        raise CommandError(
            "--reload and --json exclude each other: restarted runs have no single result",
            ExitCode.USAGE,
        )
    return run_async(reloading.reload, sys.argv[1:])


def _check_words(not_taken: Mapping[str, tuple[str, str]]) -> None:
    """Refuse a word after an option that is neither its value nor a module with pipelines."""
    for word, (option, what) in not_taken.items():
        if not _has_pipelines(word.partition(":")[0]):
            raise CommandError(
                f"{word!r} after {option} is neither {what} nor a module with a pipeline",
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
