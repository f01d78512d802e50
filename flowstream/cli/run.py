"""`flowstream run`: pipelines from their modules, until they end or are told to."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.options import Json, command_with_optional_values, examples, run_async
from flowstream.cli.output import note, print_json, report, say, stderr

if TYPE_CHECKING:
    from flowstream.cli.supervisor import Outcome, Plan

IDLE_SECONDS = "2"
HTTP_ADDRESS = "127.0.0.1:9464"
LOOPBACK = "127.0.0.1"


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        cls=command_with_optional_values(until_idle=IDLE_SECONDS, http=HTTP_ADDRESS),
        epilog=examples(
            "flowstream run pipelines.orders",
            "flowstream run pipelines.orders:pipeline pipelines.audit --http",
            "flowstream run pipelines.orders --until-idle",
            "flowstream run pipelines.orders --url rabbitmq-stream://me:secret@rabbit:5552/shop",
        ),
    )(run)


def run(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:NAME]...",
            help="Modules with a pipeline; NAME where a module has several.",
        ),
    ],
    *,
    until_idle: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="[SECONDS]",
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
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="FLOWSTREAM_URL",
            metavar="URL",
            help="The broker: rabbitmq-stream://user:password@host:port/vhost. Without one: "
            "localhost, or an embedded broker where nothing listens.",
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines instead of the live view on a terminal.")
    ] = False,
    tune_gc: Annotated[
        bool,
        typer.Option(
            "--tune-gc/--no-tune-gc",
            help="Collect garbage rarely while running: up to twice as fast.",
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Run pipelines until they end, Ctrl-C or SIGTERM.

    The first signal drains: what was received is finished, committed and verified, within the
    pipeline's drain_timeout. A second one ends at once. Exit codes: flowstream exit-codes.
    """
    from flowstream.cli.load import load_pipelines
    from flowstream.cli.supervisor import Plan

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    plan = Plan(
        pipelines=dict(zip(targets, load_pipelines(targets), strict=True)),
        url=url,
        until_idle=until_idle,
        http=None if http is None else parse_address(http),
        live=stderr().is_terminal and not plain and not json,
        tune_gc=tune_gc,
    )
    outcome = run_async(_supervise, plan)
    _tell(outcome, plan, as_json=json)


async def _supervise(plan: Plan) -> Outcome:
    from flowstream.cli.supervisor import Supervisor

    return await Supervisor(plan).run()


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or PORT; loopback where no host is given."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise CommandError(
            f"--http {text!r} is no address; write HOST:PORT, :PORT or nothing", ExitCode.USAGE
        )
    return host.strip("[]") or LOOPBACK, int(port)


def _tell(outcome: Outcome, plan: Plan, *, as_json: bool) -> None:
    from flowstream.cli import summary

    if as_json:
        results = [summary.as_json(result, target) for target, result in outcome.results.items()]
        print_json(results)
    else:
        for target, result in outcome.results.items():
            for line in summary.summarize(result, target, idle=plan.until_idle is not None):
                say(line)
    code = ExitCode.OK
    if outcome.error is not None:
        code = report(outcome.error)
    if outcome.forced:
        note("ended by a second signal, before everything was settled: the rest is replayed")
        code = ExitCode.FORCED
    if outcome.forced or any(result.hung for result in outcome.results.values()):
        # A handler may still hang in a thread, and the interpreter would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
