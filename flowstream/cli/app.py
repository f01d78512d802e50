"""The tree of commands, and `main`, which turns every error into one line and an exit code.

`flowstream --help` has to be quick, so this file imports no command: they are in a table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, NoReturn

import typer
from typer.main import get_command

from flowstream.cli.exit_codes import CommandError, ExitCode, root_cause
from flowstream.cli.output.console import (
    discard,
    open_results,
    report,
    show_tracebacks,
    unwritten_result,
)
from flowstream.cli.output.progress import progress_shown
from flowstream.cli.parser.group import RICH_HELP, Entry, LazyGroup, examples, loaded
from flowstream.texts import is_a
from flowstream.version import __version__

COMMANDS = (
    Entry(
        "run",
        "flowstream.cli.usage.run",
        "Run pipelines until they end, Ctrl-C or SIGTERM.",
    ),
    Entry(
        "new",
        "flowstream.cli.usage.new",
        "Write NAME.py, a small pipeline, and test_NAME.py, which tests it without a broker.",
    ),
    Entry(
        "publish",
        "flowstream.cli.usage.publish",
        "Publish a file to a stream: each line or record is one message.",
    ),
    Entry("peek", "flowstream.cli.usage.tail", "Show some messages of a stream and end."),
    Entry("tail", "flowstream.cli.usage.tail", "Show messages as they arrive, until Ctrl-C."),
    Entry(
        "broker",
        "flowstream.cli.usage.broker",
        "Run the embedded broker: one machine, the real protocol, nothing to install.",
    ),
    Entry(
        "check",
        "flowstream.cli.usage.check",
        "Check that pipelines would run: declaration, options, handlers and payload types.",
    ),
    Entry(
        "graph",
        "flowstream.cli.usage.graph",
        "Draw pipelines: from their streams through their handlers to where messages end.",
    ),
    Entry(
        "config",
        "flowstream.cli.usage.config",
        "Show every setting, with its value and where it came from.",
    ),
    Entry(
        "doctor",
        "flowstream.cli.usage.doctor",
        "Find problems of this machine and the broker, with their remedies.",
    ),
    Entry(
        "top",
        "flowstream.cli.usage.top",
        "Watch running pipelines: rates, lag, stages, batches, failures, committed offsets.",
    ),
    Entry(
        "lag",
        "flowstream.cli.usage.lag",
        "Show how far readers are behind, in messages and in seconds, for each partition.",
    ),
    Entry(
        "workers",
        "flowstream.cli.usage.workers",
        "List the worker processes of flowstream run --workers, and restart them one by one.",
    ),
    Entry(
        "bench",
        "flowstream.cli.usage.bench",
        "Measure publishing and consuming on a broker, in a stream that is deleted afterwards.",
    ),
    Entry(
        "exit-codes",
        "flowstream.cli.usage.exit_codes",
        "List the exit codes of every command with their meanings.",
    ),
    Entry("streams", "flowstream.cli.usage.streams", "Create, delete, list and inspect streams."),
    Entry(
        "super-streams",
        "flowstream.cli.usage.super_streams",
        "Create, delete and inspect super streams: streams of several partitions.",
    ),
    Entry(
        "offsets",
        "flowstream.cli.usage.offsets",
        "Show, set, reset and forget stored offsets: the last messages that readers settled.",
    ),
    Entry(
        "sinks",
        "flowstream.cli.usage.sinks",
        "Create the tables and directories of sinks, show what they have written, or forget it.",
    ),
    Entry(
        "dead-letters",
        "flowstream.cli.usage.dead_letters",
        "List, show and replay messages that failed.",
    ),
    Entry(
        "dashboards",
        "flowstream.cli.usage.dashboards",
        "Write Grafana dashboards, Prometheus rules and their provisioning.",
    ),
)
"""Every command and group of commands, in the order of the help."""

NO_ARGUMENTS = "NoArgsIsHelpError"
"""The parser's error for a group without a command. Its text is the help, or empty if the help was
drawn already. Its class is not public in Typer."""


class Root(LazyGroup):
    """`flowstream` itself."""

    table: ClassVar[Sequence[Entry]] = COMMANDS


app: Final = typer.Typer(
    cls=Root,
    help="Data pipelines on RabbitMQ Streams.",
    epilog=examples(
        "flowstream new orders",
        "flowstream publish orders orders.csv --create",
        "flowstream run pipelines.orders",
        "flowstream offsets get orders orders",
        "flowstream exit-codes",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich" if RICH_HELP else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flowstream {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks. Works anywhere on the command line.")
    ] = False,
) -> None:
    """Data pipelines on RabbitMQ Streams."""


def command_tree() -> Any:
    """The whole tree with every command loaded, for the reference pages and tests."""
    tree: Any = get_command(app)
    tree.commands = {name: loaded(command) for name, command in tree.commands.items()}
    return tree


def take_debug(args: list[str]) -> tuple[bool, list[str]]:
    """Whether `--debug` is on the command line (before any `--`), and the line without it."""
    end = args.index("--") if "--" in args else len(args)
    rest = [arg for arg in args[:end] if arg != "--debug"] + args[end:]
    return len(rest) < len(args), rest


def main() -> NoReturn:
    """The entry point of `flowstream`."""
    open_results()
    debug, args = take_debug(sys.argv[1:])
    if debug:
        show_tracebacks()
    try:
        with progress_shown():
            code = app(args, prog_name="flowstream", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
    except typer.Abort as end:  # the input ended where an answer was expected
        sys.exit(report(end.__cause__ or end))
    except BaseException as error:
        if type(error).__name__ == NO_ARGUMENTS:
            sys.stderr.write(str(error))
            sys.exit(ExitCode.USAGE)
        cause = root_cause(error)
        if not is_a(cause, BrokenPipeError):
            unwritten = unwritten_result() if is_a(cause, OSError) else None
            sys.exit(report(unwritten or usage_error(error) or error))
    else:
        sys.exit(code or ExitCode.OK)
    discard(sys.stdout)
    sys.exit(ExitCode.OK)


def usage_error(error: Any) -> CommandError | None:
    """An error of the parser as an error like all others; None for errors that are not its own."""
    if not hasattr(error, "format_message"):
        return None
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f" ({context.command_path} --help shows how)"
    return CommandError(f"{text}{hint}", ExitCode.USAGE)
