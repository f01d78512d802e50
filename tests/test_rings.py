"""The rings of tests: what each of them collects."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.report import FAST, TESTS


@pytest.mark.slow
def test_the_fast_ring_collects_its_folders_and_nothing_else() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "--ring", "fast"]
    done = subprocess.run(
        command, cwd=TESTS.parent, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout
    folders = {
        line.split("/")[1]
        for line in done.stdout.splitlines()
        if line.startswith("tests/") and "::" in line
    }
    assert folders == set(FAST)
