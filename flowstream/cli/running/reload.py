"""`flowstream run --reload`: the run in a process of its own, drained and restarted on a change.

Every change gets a new process, so that nothing of the old modules remains. A run that ends by
itself, or whose module cannot be imported, is started again after the next change. Signals are
forwarded to the run. It also drains when this process ends, because its standard input is a pipe
from here.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
from anyio.abc import Process

from flowstream.cli.event_loop import on_signal
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note

FLAG = "--reload"
CHILD = "--with-parent"
OTHER_FILES = (".env", "pyproject.toml")
SETTLE = 200
"""Milliseconds in which changes count as one: editors may write a file several times."""


def child_command(args: list[str], mark: str = CHILD) -> list[str]:
    """The command line of the run, from the one of this process; `mark` says what it is."""
    end = args.index("--") if "--" in args else len(args)
    options = [arg for arg in args[:end] if arg != FLAG]
    return [sys.executable, "-m", "flowstream", *options, mark, *args[end:]]


def is_source(path: str) -> bool:
    """Whether a change of this file affects a run."""
    return path.endswith(".py") or os.path.basename(path) in OTHER_FILES


async def reload(args: list[str]) -> int:
    """Run, and restart after every change, until a signal. Returns the exit code."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise CommandError(
            "run --reload needs watchfiles (the extra reload): pip install watchfiles",
            ExitCode.NOT_SUPPORTED,
        ) from None
    return await Reloader(child_command(args), Path.cwd()).run()


class Reloader:
    """One command, restarted whenever a source below `folder` changes."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: Process | None = None
        self._changed = anyio.Event()
        self._signals = 0

    async def run(self) -> int:
        async with anyio.create_task_group() as beside:
            beside.start_soon(on_signal, self._forward)
            beside.start_soon(self._watch)
            code = await self._until_signalled()
            beside.cancel_scope.cancel()
        return code

    async def _until_signalled(self) -> int:
        while True:
            self._changed = anyio.Event()
            code = await self._run_once()
            if self._signals:
                return ExitCode.OK if code == -signal.SIGTERM else code  # the run had not started
            if not self._changed.is_set():
                note(f"the run ended with exit code {code}; waiting for a change")
                if await self._signalled_before_change():
                    return ExitCode.FORCED

    async def _signalled_before_change(self) -> bool:
        """Wait for a change. Returns True if a signal came instead."""
        await self._changed.wait()
        return self._signals > 0

    async def _run_once(self) -> int:
        """Run once, and drain when a source changes. Returns the exit code."""
        process = await anyio.open_process(
            self._command,
            stdin=-1,
            stdout=None,
            stderr=None,
            start_new_session=True,  # so that Ctrl-C reaches the run only once, from here
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

    def _forward(self) -> None:
        """Forward a signal to the run, or end the wait for a change."""
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
            note(f"{', '.join(names)} changed: draining and restarting")
            self._changed.set()
