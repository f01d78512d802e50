"""The README's code runs as it stands there, and what it links to exists."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from flowstream.testing import broker
from tests.documents import ROOT, blocks, run_page

README = ROOT / "README.md"


@pytest.mark.slow
def test_the_first_pipeline_and_its_test(tmp_path: Path) -> None:
    run_page(README, tmp_path, "")
    assert (tmp_path / "pipelines" / "orders.py").exists()


async def test_the_client(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = [block.source for block in blocks(README) if "def copy" in block.source]
    client = types.ModuleType("client")
    monkeypatch.setitem(sys.modules, client.__name__, client)
    exec(compile(source, "README.md", "exec"), client.__dict__)
    async with broker() as running:
        await client.copy(running.url)
    assert capsys.readouterr().out.strip() == "0 [b'hello', b'world']"


@pytest.mark.parametrize(
    "page", [README, ROOT / "docs" / "quick-start.md"], ids=["readme", "quick"]
)
def test_make_knows_the_commands(page: Path) -> None:
    commands = [
        line.split("#")[0].split()
        for block in blocks(page)
        if block.language == "sh"
        for line in block.source.splitlines()
        if line.startswith("make")
    ]
    assert len(commands) == 2
    for command in commands:
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
