"""The end of a run: its results as text or JSON, its errors, and the exit code."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import NoReturn

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code, root_cause
from flowstream.cli.output.console import (
    discard,
    flush_notes,
    note,
    print_json,
    report,
    report_line,
    say,
    unwritten_result,
)
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.cli.running import summary
from flowstream.cli.running.supervisor import Outcome, Plan
from flowstream.cli.workers.results import Ended, unopened
from flowstream.texts import plural, text_of

THREADS_GRACE = 1.0
"""Seconds for threads to end after the run."""


def ended(outcome: Outcome, plan: Plan) -> Ended:
    """The end of a run in this process."""
    pipelines = plan.pipelines
    return Ended(
        results=outcome.results,
        idle=outcome.idle,
        unopened=unopened(outcome, pipelines),
        dead_letters={it: topology_of(pipelines[it]).dead_letters for it in outcome.results},
        errors=outcome.errors,
        forced=outcome.forced,
    )


def report_run(ended: Ended, *, as_json: bool, command: str | None = None) -> NoReturn:
    """Print the summary of a run, and exit with its code. `command` continues the run."""
    unwritten: CommandError | None = None
    try:
        _print_results(ended, as_json=as_json, command=command)
    except OSError as unwritable:
        if unwritable.errno in {errno.EPIPE, errno.EIO}:  # its reader has gone
            discard(sys.stdout)
        elif (unwritten := unwritten_result()) is None:
            raise
    errors: dict[str, BaseException] = {}
    for error in ended.errors:  # the loss of a broker ends several pipelines in the same words
        errors.setdefault(text_of(root_cause(error)), error)
    code = ExitCode.OK
    if ended.forced:
        code = ExitCode.FORCED
    elif ended.reported is not None:
        code = ExitCode(ended.reported.code)
    elif errors:
        code = exit_code(root_cause(next(iter(errors.values()))))
    elif unwritten is not None:
        code = unwritten.exit_code
    _print_notes(ended, errors.values())
    if unwritten is not None:
        report(unwritten)
    leave(code)


def _print_results(ended: Ended, *, as_json: bool, command: str | None) -> None:
    if as_json:
        results = [summary.as_json(result, target) for target, result in ended.results.items()]
        print_json(results)
        return
    for target, result in ended.results.items():
        lines = summary.summarize(
            result,
            target,
            idle=target in ended.idle,
            dead_letters=ended.dead_letters.get(target),
            command=command,
        )
        for line in lines:
            say(line)
    for name, how in ended.unopened.items():
        say(f"{name}: {how} before it was running")


def _print_notes(ended: Ended, errors: Iterable[BaseException]) -> None:
    for result in ended.results.values():
        if (warning := summary.warning(result)) is not None:
            note(warning, style="bold red")
    if ended.deaths:
        times = plural(ended.deaths, "time")
        note(f"worker processes died {times}; the log says when, and why", style="bold red")
    for error in errors:
        report(error)
    if ended.reported is not None:
        report_line(ended.reported.text, ExitCode(ended.reported.code))
    if ended.forced:
        note("ended by a second signal; messages that are not settled are delivered again")


def leave(code: ExitCode) -> NoReturn:
    """Exit, even if a handler still blocks a thread that the interpreter would wait for."""
    deadline = time.monotonic() + THREADS_GRACE
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                flush_notes()
                os._exit(code)
    raise typer.Exit(code)
