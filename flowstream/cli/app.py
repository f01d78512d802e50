"""The tree of commands, and `main`, which turns every error into one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from flowstream import __version__
from flowstream.cli.commands import (
    bench,
    broker,
    check,
    config,
    dashboards,
    dead_letters,
    doctor,
    graph,
    lag,
    new,
    offsets,
    offsets_reset,
    publish,
    run,
    streams,
    super_streams,
    tail,
    top,
)
from flowstream.cli.configuration.defaults import defaults
from flowstream.cli.exit_codes import MEANINGS, CommandError, ExitCode, root_cause
from flowstream.cli.output.console import print_json, print_rows, report, show_tracebacks
from flowstream.cli.output.progress import telling
from flowstream.cli.parser.options import Json, examples, new_app
from flowstream.texts import is_a

HELP = frozenset({"--help", "-h"})
"""Help shows the defaults of the program, not what is configured (which may be secret)."""

NO_ARGUMENTS = "NoArgsIsHelpError"
"""What the parser raises for a group of commands alone: its text is the help, or empty where that
is drawn already. Typer keeps the classes of its errors to itself."""

app = new_app(
    help="Data pipelines on RabbitMQ Streams.",
    epilog=examples(
        "flowstream new orders",
        "flowstream publish orders orders.csv --create",
        "flowstream run pipelines.orders",
        "flowstream offsets get orders orders",
        "flowstream exit-codes",
    ),
)
run.register(app)
new.register(app)
publish.register(app)
tail.register(app)
broker.register(app)
check.register(app)
graph.register(app)
config.register(app)
doctor.register(app)
top.register(app)
lag.register(app)
bench.register(app)
offsets_reset.register(offsets.app)
app.add_typer(streams.app)
app.add_typer(super_streams.app)
app.add_typer(offsets.app)
app.add_typer(dead_letters.app)
app.add_typer(dashboards.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flowstream {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere in the line.")
    ] = False,
) -> None:
    """Data pipelines on RabbitMQ Streams."""
    if context.obj is not HELP:
        context.default_map = defaults(context.command)


@app.command("exit-codes", epilog=examples("flowstream exit-codes", "flowstream exit-codes --json"))
def exit_codes(json: Json = False) -> None:
    """List the exit codes of every command, and what each means."""
    rows = [{"code": int(code), "meaning": meaning} for code, meaning in MEANINGS.items()]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["code", "meaning"], empty="")


def take_debug(args: list[str]) -> tuple[bool, list[str]]:
    """Whether `--debug` stands in the line (before any `--`), and the line without it."""
    end = args.index("--") if "--" in args else len(args)
    rest = [arg for arg in args[:end] if arg != "--debug"] + args[end:]
    return len(rest) < len(args), rest


def main() -> NoReturn:
    """The entry point of `flowstream`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # results and notes in the order they were told
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    debug, args = take_debug(sys.argv[1:])
    if debug:
        show_tracebacks()
    obj = HELP if HELP & {*args} else None
    try:
        with telling():
            code = app(args, prog_name="flowstream", obj=obj, standalone_mode=False)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
    except typer.Abort as end:  # Typer's word for an end of input that nobody expected
        sys.exit(report(end.__cause__ or end))
    except BaseException as error:
        if type(error).__name__ == NO_ARGUMENTS:
            sys.stderr.write(str(error))
            sys.exit(ExitCode.USAGE)
        if not is_a(root_cause(error), BrokenPipeError):
            sys.exit(report(usage(error) or error))
    else:
        sys.exit(code or ExitCode.OK)
    _nobody_reads()
    sys.exit(ExitCode.OK)


def usage(error: Any) -> CommandError | None:
    """A mistake that the parser found, in the form of every other error; None for other errors."""
    if not hasattr(error, "format_message"):
        return None
    said = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f" ({context.command_path} --help shows how)"
    return CommandError(f"{said}{hint}", ExitCode.USAGE)


def _nobody_reads() -> None:
    """The reader of our output has gone (`| head`): nothing is left to tell it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
