"""A process that forks others, which tests kill: what is slow, the imports, is done once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.chaos.orders import ROOT


class Nursery:
    """Forks processes that run a pipeline; nothing it forked is left behind."""

    def __init__(self, module: str, *arguments: str, errors: Path) -> None:
        self.process_id = 0
        self._errors = errors.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def start(self, how: str = "slow") -> int:
        """The id of a process that has begun."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{how}\n")
        self._process.stdin.flush()
        self.process_id = int(self._line())
        return self.process_id

    def end(self) -> int:
        """Wait for its end: its exit code, or minus the signal."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, Path(self._errors.name).read_text()[-4000:]
        return line

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
