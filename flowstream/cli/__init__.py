"""The command line: `flowstream run|publish|streams|offsets|...`.

Nothing imports this room. One habit throughout: every command's help ends with examples; what has
output has `--json`; colour and live displays only on a terminal (and never with `NO_COLOR`);
mistakes are one line on standard error with an exit code from `exit_codes.py`, without a traceback
unless `--debug` is given. Modules of the other rooms are imported by the commands that need them,
so that `--help` is quick.

Read in this order:

    app.py         the tree of commands, and `main`; exit_codes.py which error ends with which code
    commands/      one file for each command or group of commands
    parser/        options that commands share; values as people write them
    configuration/ settings, and how they reach options and pipelines
    output/        standard output and error, tables, progress, log records
    connection/    how commands find and reach a broker
    pipelines/     modules -> pipelines, their streams, their parts in words
    running/       what `flowstream run` does; view/ the live view on a terminal
    readers/       who reads a stream, and how far each reader is
    publishing/    files into streams; dead_letters/ read and replayed
    diagnosis/     what `flowstream check` and `flowstream doctor` examine
    document.py    docs/cli.md and docs/configuration.md
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
