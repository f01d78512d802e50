"""The socket of a run with workers, for `flowstream workers`: list them, restart them one by one.

It is a unix socket named after the parent's process, in a folder that only this user may enter. So
only this user, and root, can list or restart workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio import to_thread

from flowstream.cli.output.console import note
from flowstream.cli.workers.decisions import Decisions
from flowstream.monitor import WorkersMonitor

SUFFIX = ".sock"
LONGEST_REQUEST = 4096
LONGEST_ANSWER = 4 * 1024 * 1024
REQUEST_TIMEOUT = 5.0
PATIENCE = 10.0
"""Seconds in which a run has to answer."""
TICK = 0.2
"""Seconds between two looks at a roll."""


class ControlRefused(Exception):
    """A run cannot be asked, or does not do what it was asked to do."""


class Led(Protocol):
    """The parent of a run."""

    @property
    def decisions(self) -> Decisions: ...

    @property
    def monitor(self) -> WorkersMonitor: ...


def folder() -> Path:
    """The folder of the sockets. Raises OSError if it cannot be private to this user."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    place = Path(base) / "flowstream" if base and Path(base).is_dir() else _in_temporary_files()
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{place} is not a folder that only this user may enter")
    return place


def _in_temporary_files() -> Path:
    return Path(tempfile.gettempdir()) / f"flowstream-{os.getuid()}"


# -- in the parent


async def serve_control(led: Led) -> None:
    """Answer `flowstream workers` until cancelled. The run goes on without a socket."""
    try:
        with anyio.CancelScope(shield=True):
            path, listening = await to_thread.run_sync(_listen)
    except OSError as error:
        note(
            f"flowstream workers cannot reach this run: {error}; send it SIGHUP to restart workers"
        )
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError):
            await _answer(led, reader, writer)
        writer.close()

    try:
        with listening:
            server = await asyncio.start_unix_server(answer, sock=listening, limit=LONGEST_REQUEST)
            try:
                await anyio.sleep_forever()
            finally:
                server.close()  # without waiting for clients that say nothing
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(path.unlink, True)


def _listen() -> tuple[Path, socket.socket]:
    """A socket under this process's own name, for this user only.

    It gets the name when it can be reached: whoever finds it can connect.
    """
    path = socket_of(os.getpid())
    unnamed = path.with_suffix(".new")
    unnamed.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(unnamed))
        unnamed.chmod(0o600)
        listening.listen()
        unnamed.replace(path)
    except OSError:
        listening.close()
        raise
    return path, listening


async def _answer(led: Led, reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(REQUEST_TIMEOUT):
        request = _parsed(await reader.readline())
    if request.get("do") == "list":
        await _send(stream, described(led, await to_thread.run_sync(os.getcwd)))
    elif request.get("do") == "restart":
        await _restart(led, stream)
    else:
        await _send(stream, {"done": False, "text": "unknown request"})


async def _restart(led: Led, stream: asyncio.StreamWriter) -> None:
    """Start a roll, and tell how it goes until it ends."""
    decisions = led.decisions
    refused = decisions.start_roll(anyio.current_time())
    if refused:
        await _send(stream, {"done": False, "text": refused})
        return
    sent = -1
    while (roll := decisions.roll) is not None:
        done = roll.total - len(roll.left)
        if done != sent:
            sent = done
            await _send(stream, {"restarted": done, "of": roll.total})
        await anyio.sleep(TICK)
    await _send(stream, {"done": decisions.rolled == "ok", "text": decisions.rolled})


def described(led: Led, folder: str) -> dict[str, Any]:
    """A run, for `flowstream workers list`."""
    shown = led.monitor.snapshot()
    return {
        "pid": os.getpid(),
        "folder": folder,
        "targets": [pipeline["name"] for pipeline in shown["pipelines"]],
        "seconds": shown["uptime"],
        "workers": shown["workers"],
    }


async def _send(stream: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    await stream.drain()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# -- in a command


def runs() -> Iterator[dict[str, Any]]:
    """Every run of this user with workers on this machine."""
    try:
        sockets = sorted(folder().glob(f"*{SUFFIX}"))
    except OSError as error:
        raise ControlRefused(str(error)) from error
    for path in sockets:
        try:
            found = list(asked(path, {"do": "list"}, PATIENCE))
        except ConnectionRefusedError:  # its run was killed
            path.unlink(missing_ok=True)
        except FileNotFoundError:  # it has ended
            continue
        except (OSError, ControlRefused) as error:
            note(f"the run {path.stem} does not answer: {error}")
        else:
            yield from found


def socket_of(pid: int) -> Path:
    """The socket of the run of this parent."""
    return folder() / f"{pid}{SUFFIX}"


def asked(
    path: Path, request: dict[str, Any], timeout: float = PATIENCE
) -> Iterator[dict[str, Any]]:
    """The answers of a run, as they come; each may take `timeout`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answers:
            while line := answers.readline(LONGEST_ANSWER):
                found = _parsed(line)
                if not found:
                    raise ControlRefused("the run sent an answer that cannot be read")
                yield found
