"""A broker of the run's own: started where no address was given and nothing listens.

It is a process of its own on loopback, keeps its data in `.flowstream/`, and ends with the run:
it holds the other end of a pipe and stops when that closes, however this process ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.output import note, one_line

HOST = "127.0.0.1"
PORT = 5552
DATA = Path(".flowstream")
LOG = "broker.log"
START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0


async def somebody_listens() -> bool:
    """Is there a broker (or anything) on the default port?"""
    try:
        stream = await anyio.connect_tcp("localhost", PORT)
    except OSError:
        return False
    await anyio.aclose_forcefully(stream)
    return True


@asynccontextmanager
async def own_broker() -> AsyncIterator[None]:
    """Start the broker and say so in one line; stop it afterwards."""
    process = await to_thread.run_sync(_start)
    try:
        await _until_it_listens(process)
        note(
            f"no broker on localhost:{PORT} and none was named: using an embedded one for this "
            f"run, data in {DATA}/ (--url or FLOWSTREAM_URL names another)"
        )
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_stop, process)


def _start() -> subprocess.Popen[bytes]:
    try:
        DATA.mkdir(exist_ok=True)
        (DATA / ".gitignore").write_text("*\n")
        log = (DATA / LOG).open("ab")
    except OSError as error:
        raise CommandError(
            f"cannot keep the embedded broker's data in {DATA.resolve()}: {error.strerror}; "
            "run from a folder that can be written to, or name a broker with --url",
            ExitCode.CONNECTION,
        ) from error
    with log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [
                *(sys.executable, "-m", "flowstream", "broker", "--with-parent"),
                *("--host", HOST, "--port", str(PORT), "--data", str(DATA)),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the run: the broker must outlive its drain
        )


async def _until_it_listens(process: subprocess.Popen[bytes]) -> None:
    with anyio.move_on_after(START_TIMEOUT):
        while process.poll() is None:
            if await somebody_listens():
                return
            await anyio.sleep(0.05)
    reason = await to_thread.run_sync(_last_line)
    raise CommandError(
        f"the embedded broker did not start: {reason} (see {DATA / LOG})", ExitCode.CONNECTION
    )


def _last_line() -> str:
    lines = (DATA / LOG).read_text(errors="replace").strip().splitlines()
    return one_line(lines[-1]) if lines else "it said nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
