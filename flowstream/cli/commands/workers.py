"""`flowstream workers`: list the worker processes of runs, and restart them one by one."""

from __future__ import annotations

from typing import Any

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import (
    note,
    print_json,
    say,
    short_duration,
    short_size,
)
from flowstream.cli.output.tables import Row, print_rows
from flowstream.cli.workers.control import ControlRefused, asked, runs, socket_of
from flowstream.texts import plural

STEP_TIMEOUT = 300.0
"""Seconds that a run may take for one worker before the command gives up waiting."""
COLUMNS = ("worker", "process", "state", "restarts", "partitions", "per s", "settled", "memory")


def list_workers(*, json: bool) -> None:
    """List your runs with workers on this machine, and which partitions each worker reads."""
    found = _runs()
    if json:
        print_json(found)
        return
    if not found:
        note("no run with --workers of this user is running on this machine")
    for run in found:
        say(_title(run))
        print_rows([_row(worker) for worker in run["workers"]], COLUMNS, empty="no workers")


def restart(pid: int | None) -> None:
    """Replace the workers of a run, and report each that is replaced."""
    run = _chosen(pid)
    try:
        for answer in asked(socket_of(run["pid"]), {"do": "restart"}, STEP_TIMEOUT):
            if "done" in answer:
                if answer["done"]:
                    say(f"restarted {plural(len(run['workers']), 'worker')} of {_name(run)}")
                    return
                raise CommandError(f"{_name(run)}: {answer['text']}", ExitCode.WORKER)
            note(f"{answer['restarted']} of {answer['of']} restarted")
    except (OSError, ControlRefused) as error:
        raise CommandError(f"{_name(run)} does not answer: {error}", ExitCode.WORKER) from error
    raise CommandError(f"{_name(run)} has ended", ExitCode.WORKER)


def _chosen(pid: int | None) -> dict[str, Any]:
    found = _runs()
    if pid is not None:
        found = [run for run in found if run["pid"] == pid]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{run['pid']} ({', '.join(run['targets'])})" for run in found)
        raise CommandError(f"name one of several runs by its process: {listed}", ExitCode.USAGE)
    which = "no run with --workers" if pid is None else f"no run with --workers is process {pid}"
    more = " of this user is running on this machine" if pid is None else ""
    raise CommandError(f"{which}{more}; flowstream workers list lists them", ExitCode.WORKER)


def _runs() -> list[dict[str, Any]]:
    try:
        return list(runs())
    except ControlRefused as error:
        raise CommandError(str(error), ExitCode.WORKER) from error


def _name(run: dict[str, Any]) -> str:
    return f"the run {run['pid']}"


def _title(run: dict[str, Any]) -> str:
    pipelines = ", ".join(run["targets"]) or "starting"
    running = short_duration(run["seconds"])
    return f"run {run['pid']}: {pipelines}, for {running}, in {run['folder']}"


def _row(worker: dict[str, Any]) -> Row:
    memory = worker["memory"]
    return {
        "worker": f"{worker['number']}{' (new)' if worker['replacement'] else ''}",
        "process": str(worker["pid"] or "-"),
        "state": f"{worker['state']} for {short_duration(worker['seconds'])}",
        "restarts": worker["restarts"],
        "partitions": ", ".join(worker["partitions"]) or "none",
        "per s": round(worker["rate"]),
        "settled": worker["settled"],
        "memory": None if memory is None else short_size(memory),
    }
