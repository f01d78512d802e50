"""What type checkers say of flowstream: its types are complete, and wrong declarations are errors.

The files named `right` have declarations that checkers must accept; those named `wrong` mark the
lines that they must refuse.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted([*HERE.glob("*right.py"), *HERE.glob("*wrong.py")])
MYPY = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
ERROR = re.compile(r"(\w*(?:right|wrong)\.py):(\d+):.*\berror\b")

pytestmark = pytest.mark.slow


def complaints(*command: str) -> dict[str, set[int]]:
    """The lines that a checker complains of, by file."""
    done = subprocess.run(
        [*command, *map(str, FILES)],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    found: dict[str, set[int]] = {file.name: set() for file in FILES}
    for file, line in ERROR.findall(done.stdout):
        found[file].add(int(line))
    assert any(found.values()), done.stdout + done.stderr
    return found


def marked(file: Path) -> set[int]:
    lines = enumerate(file.read_text().splitlines(), 1)
    return {number for number, line in lines if line.endswith("# wrong")}


def pyright() -> list[str]:
    return [pyright_program(), "--pythonpath", sys.executable]


def pyright_program() -> str:
    program = Path(sys.executable).with_name("pyright")
    found = str(program) if program.exists() else which("pyright")
    if found is None:
        pytest.skip("pyright is not installed: make setup")
    probe = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    if probe.returncode:
        said = (probe.stderr or probe.stdout).strip().splitlines()[-1:]
        pytest.skip(f"pyright cannot be fetched here, which needs node and npm: {said}")
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_checkers_see_what_is_wrong(checker: str) -> None:
    command = MYPY if checker == "mypy" else pyright()
    assert complaints(*command) == {file.name: marked(file) for file in FILES}


def test_the_types_of_all_public_names_are_complete(tmp_path: Path) -> None:
    folder = str(Path(sys.executable).parent)  # pyright asks the `python` of PATH what is installed
    done = subprocess.run(
        [pyright_program(), "--verifytypes", "flowstream", "--ignoreexternal", "--outputjson"],
        cwd=tmp_path, env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)["typeCompleteness"]
    incomplete = [
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in found["symbols"]
        if not symbol["isTypeKnown"]
        for diagnostic in symbol["diagnostics"]
    ]
    assert incomplete == []
    assert found["completenessScore"] == 1, done.stdout
    assert found["exportedSymbolCounts"]["withKnownType"] > 1000
