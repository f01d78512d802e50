"""What `flowstream run` does: its options to a plan, the plan to a run, the outcome to text."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import NoReturn

import typer

from flowstream.cli.configuration.options import LogFormat, LogLevel, flag
from flowstream.cli.configuration.overrides import log_overrides, override, unused
from flowstream.cli.configuration.settings import Origin, settings
from flowstream.cli.connection.broker_choice import BrokerChoice, Source, decide
from flowstream.cli.connection.connect import connection, local
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output import logs
from flowstream.cli.output.console import note, print_json, redrawn, report, say, warn
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
from flowstream.cli.pipelines.stream_topology import chain_text, chains, endless, topology_of
from flowstream.cli.publishing.feed import FeedPlan
from flowstream.cli.publishing.records import guess_format, is_pipe
from flowstream.cli.running import reload as reloading
from flowstream.cli.running import summary
from flowstream.cli.running.supervisor import Outcome, Plan, Supervisor
from flowstream.client import DEFAULT_URL, Address
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Pipeline, Place, parse_places

THREADS_GRACE = 1.0
"""Seconds for threads to end after the run."""


def run(
    context: typer.Context,
    targets: list[str],
    *,
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
    tracing: bool,
    json: bool,
) -> None:
    """Run the pipelines of the modules, and exit with the code of the outcome."""
    if reload:
        raise typer.Exit(_reload(as_json=json))
    messages = [parse_message(text) for text in discard or []]
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
        http=None if http is None else Address(*http),
        http_control=http_control,
        live=redrawn(sys.stderr) and not plain and not json and log_format is LogFormat.TEXT,
        tune_gc=tune_gc,
        with_parent=with_parent,
        tracing=tracing,
        discard=tuple(dict.fromkeys(messages)),
    )
    outcome = run_async(_supervise, plan)
    _tell(outcome, plan, as_json=json)


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


async def _supervise(plan: Plan) -> Outcome:
    return await Supervisor(plan).run()


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


def _reload(*, as_json: bool) -> int:
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
