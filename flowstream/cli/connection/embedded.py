"""A broker of the run's own: started where it was asked for, or where there is no other.

It is a process of its own on loopback, keeps its data in `.flowstream/`, and ends with the run:
it holds the other end of a pipe and stops when that closes, however this process ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from flowstream.broker import find_local_broker
from flowstream.cli.connection.nearby import DATA
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import one_line, redrawn
from flowstream.cli.output.progress import doing

if TYPE_CHECKING:
    from flowstream.broker import LocalBroker

HOST = "127.0.0.1"
LOG = "broker.log"
START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class OwnBroker:
    """The broker of a run: where it is, and its process."""

    where: LocalBroker
    _process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raises CommandError where it has ended, which it should not before the run."""
        code = self._process.poll()
        if code is not None:
            raise CommandError(
                f"the embedded broker of this run has ended (exit code {code}, see {DATA / LOG}); "
                "what is not settled is replayed by the next run",
                ExitCode.CONNECTION,
            )


@asynccontextmanager
async def own_broker(port: int) -> AsyncIterator[OwnBroker]:
    """Start the broker (`port` 0: on a free one); stop it afterwards."""
    await to_thread.run_sync(_refuse_another)
    process = await to_thread.run_sync(_start, port)
    try:
        in_silence = nullcontext()  # in lines, the first one is to name the broker
        with doing("starting the embedded broker") if redrawn(sys.stderr) else in_silence:
            where = await _until_it_listens(process)
        yield OwnBroker(where, process)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_stop, process)


def _refuse_another(own: int | None = None) -> None:
    """A folder's data can have one broker only: another process than `own` is in the way."""
    other = find_local_broker(DATA)
    if other is not None and other.process != own:
        raise CommandError(
            f"--embedded: a broker runs on the data in {DATA.resolve()} already (process "
            f"{other.process}, at {other.address}); leave --embedded out to use that one, or run "
            "in another folder",
            ExitCode.CONNECTION,
        )


def _start(port: int) -> subprocess.Popen[bytes]:
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
                *("--host", HOST, "--port", str(port), "--data", str(DATA)),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the run: the broker must outlive its drain
        )


async def _until_it_listens(process: subprocess.Popen[bytes]) -> LocalBroker:
    with anyio.move_on_after(START_TIMEOUT):
        while process.poll() is None:
            found = await to_thread.run_sync(find_local_broker, DATA)
            if found is not None and found.process == process.pid:
                return found
            await anyio.sleep(0.05)
    await to_thread.run_sync(_refuse_another, process.pid)
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
