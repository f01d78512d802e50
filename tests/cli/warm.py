"""A process with flowstream imported that forks for each command: `python warm.py SOCKET`.

It is started once by the tests that run commands (command.py) and ends with them. A request is one
message on the socket: the arguments, folder and variables as JSON, with the command's standard
input, output and error and a socket of its own, on which its process id and, at last, its wait
status are written.

A new interpreter needs half a second of CPU to import flowstream and build the commands, and a
quarter to take it all down; a fork of this one needs 20 ms, and is a process like any other to
signals, terminals and pipes. What a fork inherits and a new interpreter would not is undone here.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import termios
import threading
from collections.abc import Iterator
from typing import NoReturn

LARGEST = 128 * 1024
NOT_IMPORTED = (
    "flowstream.testing",
    "flowstream.tracing",
)
"""Rooms that import pytest, or what reads the environment as it is imported."""
IMPORTED_LATER = (
    "anyio._backends._asyncio",
    "anyio._core._signals",
    "encodings.idna",
    "encodings.utf_8_sig",
    "typer._adapters",
    "typer._click._textwrap",
    "typer._click.decorators",
    "uvloop",
)
"""What commands import as they run: one that connects would need 40 ms for it each time."""


def warm_up() -> None:
    """Import every module and build the commands."""
    import flowstream

    for module in pkgutil.walk_packages(flowstream.__path__, "flowstream.", onerror=print):
        if not module.name.startswith(NOT_IMPORTED) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in IMPORTED_LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import typer.main

    from flowstream.cli.app import COMMANDS, app
    from flowstream.cli.parser.group import Entry

    typer.main.get_command = functools.cache(typer.main.get_command)
    setattr(Entry, "load", functools.cache(Entry.load))  # noqa: B010 - a method
    for entry in COMMANDS:
        entry.load()
    typer.main.get_command(app)
    gc.collect()
    gc.freeze()  # a child's collector leaves it alone, so that it need not be copied


class Request:
    """A command to run, as it came through the socket."""

    def __init__(self, message: bytes, descriptors: list[int]) -> None:
        asked = json.loads(message)
        self.arguments: list[str] = asked["arguments"]
        self.folder: str = asked["folder"]
        self.variables: dict[str, str] = asked["variables"]
        *self.standard, answers = descriptors
        self.answers = socket.socket(fileno=answers)

    def close(self) -> None:
        for descriptor in self.standard:
            os.close(descriptor)
        self.answers.close()


def next_request(control: socket.socket) -> Request:
    """Fork for every request: it is returned in its child, and never in the parent."""
    running = selectors.DefaultSelector()
    running.register(control, selectors.EVENT_READ)
    answers: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in running.select():
            if key.fileobj is not control:
                running.unregister(key.fd)
                pid, answer = answers.pop(key.fd)
                _, status = os.waitpid(pid, 0)
                os.close(key.fd)
                with answer:
                    answer.send(str(status).encode())
                continue
            message, descriptors, _, _ = socket.recv_fds(control, LARGEST, 4)
            if not message:
                end([pid for pid, _ in answers.values()])
            request = Request(message, descriptors)
            pid = os.fork()
            if pid == 0:
                running.close()
                control.close()
                for watch, (_, answer) in answers.items():
                    os.close(watch)
                    answer.close()
                return request
            request.answers.send(str(pid).encode())
            watch = os.pidfd_open(pid)
            running.register(watch, selectors.EVENT_READ)
            answers[watch] = pid, request.answers.dup()
            request.close()


def end(running: list[int]) -> NoReturn:
    """The tests have gone: so does everything they started."""
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def become(request: Request) -> None:
    """Take the place of `python -m flowstream` in the folder, with the variables and streams."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also below nohup
    for number, descriptor in enumerate(request.standard):
        os.dup2(descriptor, number)
    request.close()
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.variables)
    sys.path.insert(0, os.getcwd())
    sys.argv[1:] = request.arguments
    for name, stream in zip(("stdin", "stdout", "stderr"), standard_streams(), strict=True):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def standard_streams() -> Iterator[io.TextIOWrapper]:
    """Standard input, output and error as Python opens them when it starts."""
    for number, before in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        raw = io.FileIO(number, "w" if number else "r", closefd=False)
        raw.name = before.name
        yield io.TextIOWrapper(
            io.BufferedWriter(raw) if number else io.BufferedReader(raw),
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=number == 2 or os.isatty(number),
        )


def run() -> None:
    """Run flowstream; its end is the interpreter's, without freeing every object one by one."""
    try:
        runpy.run_module("flowstream", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        gc.collect(1)  # what a task or a coroutine that nobody awaited has to say
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code & 0xFF)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, which no command would see
    warm_up()
    become(next_request(socket.socket(fileno=int(sys.argv[1]))))
    run()
