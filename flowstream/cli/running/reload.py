"""`flowstream run --reload`: the run as a process of its own, drained and started anew on a change.

A fresh process per change: nothing of the old modules is left. A run that ends by itself, or whose
module cannot be imported, is started again with the next change. Signals are handed on to the run;
it also drains when this process is gone, as it holds the other end of a pipe.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note
from flowstream.cli.parser.options import on_signal

if TYPE_CHECKING:
    from anyio.abc import Process

FLAG = "--reload"
CHILD = "--with-parent"
OTHER_FILES = (".env", "pyproject.toml")
SETTLE = 200
"""Milliseconds in which changes count as one: editors write a file more than once."""


def child_command(args: list[str]) -> list[str]:
    """The command line of the run itself, from that of this process."""
    end = args.index("--") if "--" in args else len(args)
    options = [arg for arg in args[:end] if arg != FLAG]
    return [sys.executable, "-m", "flowstream", *options, CHILD, *args[end:]]


def is_source(path: str) -> bool:
    """Whether a change of this file changes a run."""
    return path.endswith(".py") or os.path.basename(path) in OTHER_FILES


async def reload(args: list[str]) -> int:
    """Run, and run again after every change, until a signal; the exit code to end with."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise CommandError(
            "run --reload needs watchfiles (the extra reload): pip install watchfiles",
            ExitCode.NOT_SUPPORTED,
        ) from None
    return await Reloader(child_command(args), Path.cwd()).run()


class Reloader:
    """One command, started anew whenever a source below `folder` changes."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: Process | None = None
        self._changed = anyio.Event()
        self._signals = 0

    async def run(self) -> int:
        async with anyio.create_task_group() as beside:
            beside.start_soon(on_signal, self._hand_on)
            beside.start_soon(self._watch)
            code = await self._until_signalled()
            beside.cancel_scope.cancel()
        return code

    async def _until_signalled(self) -> int:
        while True:
            self._changed = anyio.Event()
            code = await self._run_once()
            if self._signals:
                return ExitCode.OK if code == -signal.SIGTERM else code  # it had not begun
            if not self._changed.is_set():
                note(f"the run ended with exit code {code}: waiting for a change")
                if await self._waited_in_vain():
                    return ExitCode.FORCED

    async def _waited_in_vain(self) -> bool:
        """Wait for a change; True when a signal came instead."""
        await self._changed.wait()
        return self._signals > 0

    async def _run_once(self) -> int:
        """The run, drained when a source changes; its exit code."""
        process = await anyio.open_process(
            self._command,
            stdin=-1,
            stdout=None,
            stderr=None,
            start_new_session=True,  # Ctrl-C comes to it once, from here
        )
        self._process = process
        async with process, anyio.create_task_group() as group:
            group.start_soon(self._stop_on_change, process)
            code = await process.wait()
            self._process = None
            group.cancel_scope.cancel()
        return code

    async def _stop_on_change(self, process: Process) -> None:
        await self._changed.wait()
        process.send_signal(signal.SIGTERM)

    def _hand_on(self) -> None:
        """A signal: for the run where there is one, else for whoever waits to start one."""
        self._signals += 1
        if self._process is None:
            self._changed.set()
        else:
            self._process.send_signal(signal.SIGTERM)

    async def _watch(self) -> None:
        from watchfiles import Change, DefaultFilter, awatch

        class Sources(DefaultFilter):
            ignore_dirs = (*DefaultFilter.ignore_dirs, ".flowstream")

            def __call__(self, change: Change, path: str) -> bool:
                return is_source(path) and super().__call__(change, path)

        async for changes in awatch(self._folder, watch_filter=Sources(), debounce=SETTLE):
            names = sorted({path.removeprefix(f"{self._folder}/") for _, path in changes})
            note(f"{', '.join(names)} changed: draining, then starting again")
            self._changed.set()
