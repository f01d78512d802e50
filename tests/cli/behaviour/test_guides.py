"""The operators' guides: every command in their console blocks runs, and says what stands there.

In what a page shows, `...` stands for anything in a line, and on a line of its own for any lines.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from flowstream.cli.configuration.settings import load
from flowstream.cli.exit_codes import ExitCode
from flowstream.testing import broker_in_thread
from tests.cli.command import TIMEOUT, environment, flowstream, start
from tests.documents import ROOT, blocks, lay_out

pytestmark = pytest.mark.timeout(300)  # many processes

SHELL = set("|&;<>()$`*?~!#{}=\n")
"""Characters that have a meaning for a shell."""
GUIDES = ("quick-start.md", "tutorial.md", "dead-letters.md", "offsets.md", "backup.md")


@pytest.fixture
def url() -> Iterator[str]:
    with broker_in_thread() as broker:
        yield broker.url


def steps(page: Path) -> list[tuple[int, str, list[str]]]:
    """(line, command, what it says) of every command of a page."""
    found: list[tuple[int, str, list[str]]] = []
    for block in blocks(page):
        if block.language != "console":
            continue
        for number, line in enumerate(block.source.splitlines()):
            if line.startswith("$ "):
                found.append((block.line + number, line[2:], []))
            else:
                found[-1][2].append(line)
    return found


def says(text: str, wanted: list[str]) -> bool:
    """Whether the text is what the page shows."""
    pattern = ""
    for line in wanted:
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("...")) + r"\n"
    return re.fullmatch(pattern, text) is not None


def said(command: str, folder: Path, env: dict[str, str]) -> str:
    """What a line for a shell writes; one that is only a command of ours needs no shell."""
    name, *arguments = shlex.split(command)
    with Path(os.devnull).open("rb") as stdin, TemporaryFile() as out:
        if name == "flowstream" and not SHELL & set(command):
            standard = stdin.fileno(), out.fileno(), out.fileno()
            process = start(arguments, standard, folder, env)
            try:
                process.wait(TIMEOUT)
            finally:
                process.kill()
        else:
            words = ["bash", "-c", command]
            subprocess.run(
                words, cwd=folder, env=env, stdin=stdin, stdout=out, stderr=out, timeout=TIMEOUT
            )
        out.seek(0)
        return out.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs(guide: str, url: str, tmp_path: Path) -> None:
    page = ROOT / "docs" / guide
    lay_out(page, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(url, {"PATH": path, "NO_COLOR": "1"})
    for line, command, wanted in steps(page):
        text = said(command, tmp_path, env)
        assert says(text, wanted), f"{guide}, line {line}: $ {command}\n{text}"


def test_what_the_tutorial_deploys_is_understood(tmp_path: Path) -> None:
    by_language = {block.language: block.source for block in blocks(ROOT / "docs" / "tutorial.md")}
    (tmp_path / "pyproject.toml").write_text(by_language["toml"])
    options = load(tmp_path).settings.pipelines["payments"]
    unit, compose = by_language["ini"], by_language["yaml"]
    commands = re.findall(r"flowstream (run payments .*)", unit + compose)
    assert len(commands) == 2
    for command in commands:
        assert flowstream("config", *command.split(), cwd=tmp_path).code == 0
    for grace in re.findall(r"(?:TimeoutStopSec=|stop_grace_period: )(\d+)", unit + compose):
        assert int(grace) > (dict(options)["drain_timeout"] or 0)
    (codes,) = re.findall(r"^RestartPreventExitStatus=(.+)$", unit, re.MULTILINE)
    assert [ExitCode(int(code)) for code in codes.split()] == [
        ExitCode.DECLARATION,
        ExitCode.HALTED,
        ExitCode.TRUNCATED,
    ]


def test_what_is_shown_may_leave_out() -> None:
    assert says("a 12 b\n", ["a ... b"])
    assert says("one\ntwo\nthree\n", ["...", "three"])
    assert says("", [])
    assert not says("a\nb\n", ["a"])
