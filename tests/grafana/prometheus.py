"""Debian's Prometheus and promtool; tests that need them are skipped where they are not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REASON = "prometheus is not installed: apt-get install prometheus"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; else the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(REASON)
    return found


def promtool(*arguments: str | Path, stdin: bytes = b"") -> None:
    """Run promtool; what it complains of is an AssertionError."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
