"""The embedded broker: the one that a run starts, and the one that already runs in this folder.

A run's broker is a separate process on the loopback address with its data in `.flowstream/`. It
ends with the run, however the run ends: its standard input is a pipe from the run, and it stops
when that closes.

A broker says in `.flowstream/` where it listens, so that commands without an address find it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, one_line, redrawn
from flowstream.cli.output.progress import doing

if TYPE_CHECKING:
    from flowstream.broker import LocalBroker

HOST = "127.0.0.1"
LOG = "broker.log"
START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0
END_SEEN = 0.5


@dataclass(frozen=True, slots=True)
class OwnBroker:
    """The broker of a run: its address and its process."""

    where: LocalBroker
    _process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise CommandError if it has ended, which it should not do before the run.

        A process that is killed closes its connections before its parent can see that it has ended.
        """
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(END_SEEN)
            raise CommandError(
                f"the embedded broker of this run has ended (exit code {code}, see {DATA / LOG}); "
                "the next run gets the unsettled messages again",
                ExitCode.CONNECTION,
            )


@asynccontextmanager
async def own_broker(port: int) -> AsyncIterator[OwnBroker]:
    """Start a broker, on a free port if `port` is 0, and stop it afterwards."""
    await to_thread.run_sync(_refuse_another)
    process = await to_thread.run_sync(_start, port)
    try:
        in_silence = nullcontext()  # in plain lines the first one names the broker
        with doing("starting the embedded broker") if redrawn(sys.stderr) else in_silence:
            where = await _until_it_listens(process)
        yield OwnBroker(where, process)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_stop, process)


def _refuse_another(own: int | None = None) -> None:
    """Raise CommandError if a process other than `own` runs a broker on this folder's data."""
    other = _running_broker()
    if other is not None and other.process != own:
        raise CommandError(
            f"--embedded: another broker uses the data in {DATA.resolve()} (process "
            f"{other.process}, at {other.address}); omit --embedded to use that broker, or run in "
            "another folder",
            ExitCode.CONNECTION,
        )


def _start(port: int) -> subprocess.Popen[bytes]:
    try:
        DATA.mkdir(exist_ok=True)
        (DATA / ".gitignore").write_text("*\n")
        log = (DATA / LOG).open("ab")
    except OSError as error:
        raise CommandError(
            f"the embedded broker cannot keep its data in {DATA.resolve()}: {error.strerror}; run "
            "in a folder that is writable, or give the address of a broker with --url",
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
            start_new_session=True,  # Ctrl-C is for the run: its drain still needs the broker
        )


async def _until_it_listens(process: subprocess.Popen[bytes]) -> LocalBroker:
    with anyio.move_on_after(START_TIMEOUT):
        while process.poll() is None:
            found = await to_thread.run_sync(_running_broker)
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
    return one_line(lines[-1]) if lines else "it wrote no message"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# -- the embedded broker of this folder


DATA = Path(".flowstream")


def _running_broker() -> LocalBroker | None:
    # Every command that connects looks here, and most find no data: importing the broker, which
    # takes a tenth of a second, waits until there is some.
    from flowstream.broker import find_local_broker

    return find_local_broker(DATA)


@cache
def broker_of_folder() -> LocalBroker | None:
    """The broker that runs on this folder's data, if any; looked up once."""
    if not DATA.is_dir():
        return None
    return _running_broker()


@cache
def note_broker_of_folder(found: LocalBroker) -> None:
    """Note, once, that this broker is used."""
    note(
        f"broker: embedded, at {found.address}, run in this folder by process {found.process} "
        "(use --url for another)"
    )
