"""`flowstream` as a process: through pipes, or on a terminal of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

COMMAND = (sys.executable, "-m", "flowstream")
TIMEOUT = 60.0
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
    if url is not None:
        kept["FLOWSTREAM_URL"] = url
    return {**kept, **(extra or {})}


def flowstream(
    *arguments: str,
    url: str | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run a command through pipes to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(url, env),
        timeout=TIMEOUT,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


class Started:
    """A command that goes on in the background, through pipes; killed at the end of `with`."""

    def __init__(self, *arguments: str, url: str | None = None, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self, pattern: str, *, out: bool = False) -> str:
        """Wait for a line on standard error (or output) that matches."""
        stream = self.process.stdout if out else self.process.stderr
        assert stream is not None
        for line in stream:
            if re.search(pattern, line.decode()):
                return line.decode()
        raise AssertionError(f"ended without a line like {pattern!r}")

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Result:
        """Wait for its end, standard input still open."""
        self.process.wait(TIMEOUT)
        out, err = self.process.communicate()
        return Result(self.process.returncode, out.decode(), err.decode())


def _take_terminal() -> None:
    """Make standard input the controlling terminal, so that Ctrl-C on it is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command on a terminal of its own; `screen` is all it wrote, without escape sequences."""

    def __init__(
        self,
        *arguments: str,
        url: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self.raw = b""
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=environment(url, {"LINES": "50", **(env or {})}),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    @property
    def screen(self) -> str:
        return _ESCAPES.sub("", self.raw.decode(errors="replace"))

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
