"""The command line: `flowstream run|publish|streams|offsets|...`.

No other room imports this one. Every command keeps the same promises:

- Its help ends with examples, and every result is also available with `--json`.
- Results go to standard output, everything else to standard error.
- An error is one line, `error: ...`, with an exit code from `exit_codes.py`; `--debug` adds the
  traceback. It says what is wrong, where, and what to do.
- Colours and live displays appear only on a terminal, and colours never with `NO_COLOR`.
- Help is quick: it imports what declares the options, and not what the command does.

Read in this order:

    app.py          the table of commands, and `main`
    exit_codes.py   the exit codes, and the error that each belongs to
    usage/          the options and the help of each command or group of commands
    commands/       what each of them does, in a file of the same name
    parser/         the command tree, options that commands share, and values of options
    configuration/  settings, and how they reach options and pipelines
    output/         standard output and error, tables, progress, log records
    event_loop.py   the event loop of a command, and signals
    connection/     how commands find and reach a broker
    pipelines/      the pipelines of a module, their streams, and their parts in words
    running/        what `flowstream run` does
    view/           the live view on a terminal
    readers/        who reads a stream, and how far each reader is
    publishing/     files published to streams
    dead_letters/   dead letters, read and replayed
    diagnosis/      what `flowstream check` and `flowstream doctor` check
    document.py     writes docs/cli.md and docs/configuration.md
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The entry point of `flowstream`."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    _open_standard_streams(command)
    _hold_hangup(command)
    from flowstream.cli.app import main as run

    run()


def _open_standard_streams(command: str) -> None:
    """Open standard streams that the parent process closed.

    Otherwise the next socket would get the number of such a stream. What is written to a closed
    standard output fails, except in `flowstream run`: there handlers may print.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            fails = name == "stdout" and command != "run"
            file = os.open(os.devnull, os.O_RDONLY if fails else flags)
            stream = open(file, "r" if name == "stdin" else "w")  # noqa: SIM115 - until the end
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _hold_hangup(command: str) -> None:
    """Let a SIGHUP to `flowstream run` wait: for a run with workers it is no reason to end.

    Whether it is one is known when options and settings are read (start.py), seconds later on a
    busy machine.
    """
    if command == "run" and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


__all__ = ["main"]
