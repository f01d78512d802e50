"""The command line: `flowstream run|publish|streams|offsets|...`.

Nothing imports this room. One habit throughout: every command's help ends with examples; what has
output has `--json`; colour and live displays only on a terminal (and never with `NO_COLOR`);
mistakes are one line on standard error with an exit code from `exits.py`, without a traceback
unless `--debug` is given. Modules of the other rooms are imported by the commands that need them,
so that `--help` is quick.

    app.py       the tree of commands, and `main`
    exits.py     the exit codes and which error ends with which
    output.py    standard output and error: JSON, one-line errors; tables.py rows as text
    options.py   options that several commands share; connect.py environments as configured
    settings.py  the settings and their places; defaults.py gives them to the parser,
                 overrides.py to pipelines; config.py `flowstream config`
    logs.py      log records on standard error
    document.py  docs/cli.md and docs/configuration.md
    load.py      MODULE[:NAME] -> Pipeline
    records.py   files -> message bodies
    run.py       `flowstream run`; supervisor.py signals, drain and summary; reload.py `--reload`
    check.py     `flowstream check`; check_broker.py its `--connect`; findings.py how it is told
    graph.py     `flowstream graph`; describe.py parts of a pipeline in words
    doctor.py    `flowstream doctor`; doctor_local.py, doctor_broker.py
    new.py       `flowstream new`; templates.py what it writes
    publish.py   `flowstream publish`
    streams.py   `flowstream streams`; management.py the broker's management API
    super_streams.py   `flowstream super-streams`
    offsets.py   `flowstream offsets`; reset.py its `reset`, readers.py who must not run then
    lag.py       `flowstream lag`; standing.py where a reader stands in a stream
    view.py      the live view of a run; fold.py what has room in a window
    progress.py  what a command does now; status_line.py the line that shows it
    top.py       `flowstream top`; monitors.py a run, asked through its monitor
    tail.py      `flowstream tail` and `peek`; messages.py what people see of a message
    dead_letters.py   `flowstream dead-letters`; letters.py one letter, replay.py exactly once
    bench.py     `flowstream bench`; latencies.py percentiles
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The entry point of `flowstream`."""
    _open_standard_streams()
    from flowstream.cli.app import main as run

    run()


def _open_standard_streams() -> None:
    """Those that whoever started us has closed: else the next socket would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - to the end


__all__ = ["main"]
