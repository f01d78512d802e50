"""`flowstream` as a process: through pipes, or on a terminal of its own.

Each command is a process, with signals, pipes, a terminal and an exit code. It is forked from one
that has everything imported (warm.py) and so costs 20 ms of CPU instead of 700. That is as cheap as
to call it in the process of the tests, and nothing needs to be put back afterwards: not the
variables, folder, modules, handlers of signals, loggers, loop, nor the garbage collector. Where the
start or the end of the interpreter itself is tested, the command is a `fresh` one.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import anyio

from tests.support.screen import Screen

_ECHO = re.compile(r"(\x1b(?:\[[0-9;?]*)?)\^C")
"""What a terminal writes for a Ctrl-C that it gets amid a sequence."""
_UNFINISHED = re.compile(r"\x1b(\[[0-9;?]*)?$")
COMMAND = (sys.executable, "-m", "flowstream")
TIMEOUT = 60.0
WARM = Path(__file__).with_name("warm.py")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(url: str | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without any that would change what the command does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLOWSTREAM_")
        and name not in {"NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED"}
    }
    kept["COLUMNS"] = "120"
    kept["TERM"] = "xterm-256color"
    kept["PYTEST_ADDOPTS"] = "-p no:hypothesispytest -p no:xdist"  # slow to import, and not needed
    if url is not None:
        kept["FLOWSTREAM_URL"] = url
    return {**kept, **(extra or {})}


def wait_until(holds: Callable[[], object]) -> None:
    """Look again and again until it holds: for what only the file system tells."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline, f"not within {TIMEOUT:g} s"
        time.sleep(0.01)


class Process(Protocol):
    """What is needed of a process, whether it was forked or begun anew."""

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...


class _Forked:
    """A command in a fork of the process that has flowstream imported (warm.py)."""

    def __init__(
        self, arguments: Sequence[str], standard: Sequence[int], folder: Path, env: dict[str, str]
    ) -> None:
        request = {"arguments": arguments, "folder": str(folder), "variables": env}
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps(request).encode()
            warm = _warm(on_terminal=os.isatty(standard[1]))
            socket.send_fds(warm, [message], [*standard, theirs.fileno()])
        self.returncode: int | None = None
        self._pid = self._answer(TIMEOUT)

    def _answer(self, timeout: float | None) -> int:
        self._answers.settimeout(timeout)
        answer = self._answers.recv(16)
        assert answer, "the process that forks for commands has ended: see its standard error"
        return int(answer)

    def poll(self) -> int | None:
        with contextlib.suppress(BlockingIOError):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(self._answer(timeout))
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _warm(*, on_terminal: bool) -> socket.socket:
    """The socket of a process that forks for commands; it ends with this one.

    Modules ask as they are imported whether there is a terminal, so there is one process for each.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output = pty.openpty()[1] if on_terminal else None  # the other side stays open to the end
    with theirs:
        process = subprocess.Popen(
            [sys.executable, WARM, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            env=environment(None),
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the tests, which end what they started
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def start(
    arguments: Sequence[str],
    standard: Sequence[int],
    folder: Path | None,
    env: dict[str, str],
    *,
    fresh: bool = False,
) -> Process:
    """Start a command: forked, or `fresh` in an interpreter of its own."""
    folder = folder or Path.cwd()
    fresh = fresh or sys.platform != "linux" or any(map(_for_the_interpreter, env.items()))
    if not fresh:
        return _Forked(arguments, standard, folder, env)
    stdin, stdout, stderr = standard
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env=env,
        start_new_session=True,
        preexec_fn=_begin_anew,
    )


def _for_the_interpreter(variable: tuple[str, str]) -> bool:
    """Whether it is read as the interpreter starts, and not what it was when that of ours did."""
    name, value = variable
    return name.startswith(("PYTHON", "LANG", "LC_")) and os.environ.get(name) != value


def _begin_anew() -> None:
    """Take a terminal, so that Ctrl-C on it is a signal, and the signals that nohup ignores."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Started:
    """A command that goes on in the background, through pipes; killed at the end of `with`."""

    def __init__(
        self,
        *arguments: str,
        url: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        (stdin, to), (out, stdout), (err, stderr) = (os.pipe() for _ in range(3))
        standard = stdin, stdout, stderr
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(to, "wb"),
            os.fdopen(out, "rb"),
            os.fdopen(err, "rb"),
        )
        try:
            self.process = start(arguments, standard, cwd, environment(url, env), fresh=fresh)
        finally:
            for descriptor in standard:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        if error is not None:
            error.add_note(f"the command had written: {self._rest()}")
        with contextlib.suppress(BrokenPipeError):  # of what it did not read
            self.stdin.close()
        self.stdout.close()
        self.stderr.close()

    def line(self, pattern: str, *, out: bool = False) -> str:
        """Wait for a line on standard error (or output) that matches."""
        said = []
        limit = threading.Timer(TIMEOUT, self.process.kill)
        limit.start()
        try:
            for line in self.stdout if out else self.stderr:
                said.append(line.decode())
                if re.search(pattern, said[-1]):
                    return said[-1]
        finally:
            limit.cancel()
        raise AssertionError(f"ended without a line like {pattern!r}:\n{''.join(said)}")

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        self.stdin.write(data)
        self.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def must_run(self) -> None:
        """Raises with what it said once it has ended: for a test that waits for what it does."""
        while self.process.poll() is None:
            await anyio.sleep(0.05)
        raise AssertionError(f"it has ended: {self.end()}")

    def end(self) -> Result:
        """Wait for its end, standard input still open."""
        try:
            self.process.wait(TIMEOUT)
        except (TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            raise AssertionError(f"not ended in {TIMEOUT:g} s: {self._rest()}") from None
        return Result(self.process.wait(), self.stdout.read().decode(), self.stderr.read().decode())

    def feed(self, data: bytes) -> Result:
        """Write all its standard input while its output is read, to the end of both."""
        with ThreadPoolExecutor(3) as pool:
            out, err = pool.submit(self.stdout.read), pool.submit(self.stderr.read)
            pool.submit(self._write_all, data)
            try:
                code = self.process.wait(TIMEOUT)
            except (TimeoutError, subprocess.TimeoutExpired):
                self.process.kill()
                said = out.result().decode() + err.result().decode()
                raise AssertionError(f"not ended in {TIMEOUT:g} s:\n{said}") from None
            except BaseException:
                self.process.kill()
                raise
            return Result(code, out.result().decode(), err.result().decode())

    def _rest(self) -> str:
        """What it has written and nobody has read, without waiting for what it started itself."""
        rest = []
        for stream in (self.stdout, self.stderr):
            os.set_blocking(stream.fileno(), False)
            rest.append((stream.read() or b"").decode(errors="replace"))
        return "\n".join(rest)

    def _write_all(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError), self.stdin:
            self.stdin.write(data)


def flowstream(
    *arguments: str,
    url: str | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run a command through pipes to its end."""
    with Started(*arguments, url=url, cwd=cwd, env=env) as command:
        return command.feed(stdin)


class Terminal:
    """A command on a terminal of its own, `width` x `height` characters.

    `screen` is all it wrote, without escape sequences, and `seen` what a person sees.
    """

    def __init__(
        self,
        *arguments: str,
        url: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        width: int = 120,
        height: int = 50,
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (height, width))
        self.size = width, height
        self.raw = b""
        try:
            size = {"COLUMNS": str(width), "LINES": str(height)}
            variables = environment(url, {**size, **(env or {})})
            self.process = start(arguments, (slave, slave, slave), cwd, variables)
        finally:
            os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        if error is not None:
            error.add_note(f"the terminal had shown:\n{self.screen}")
        os.close(self._master)

    @property
    def screen(self) -> str:
        return _ESCAPES.sub("", self.raw.decode(errors="replace"))

    @property
    def seen(self) -> Screen:
        screen = Screen(*self.size)
        text = _ECHO.sub(r"^C\1", self.raw.decode(errors="replace"))
        screen.feed(_UNFINISHED.sub("", text))
        return screen

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, pattern: str) -> None:
        """Wait until something that matches was written."""
        deadline = time.monotonic() + TIMEOUT
        while not re.search(pattern, self.screen):
            if not self._read(deadline):
                raise AssertionError(f"ended without {pattern!r}:\n{self.screen}")

    def end(self) -> int:
        """Wait for its end; the exit code."""
        deadline = time.monotonic() + TIMEOUT
        while self._read(deadline):
            pass
        return self.process.wait(TIMEOUT)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more was written in {TIMEOUT:g} s:\n{self.screen}")
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux answers EIO once the other side has closed
            return False
        self.raw += data
        return bool(data)
