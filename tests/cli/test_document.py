"""The reference pages say what the program does now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowstream.cli.configuration.models import Settings, pipeline_overrides
from flowstream.cli.configuration.settings import load
from flowstream.cli.document import PAGES
from tests.cli.tree import commands

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_current(name: str) -> None:
    current = PAGES[name]()
    assert (DOCS / name).read_text() == current, "run python -m flowstream.cli.document docs/"


def test_every_command_is_there_with_its_examples() -> None:
    page = PAGES["cli.md"]()
    headings = re.findall(r"^#+ flowstream (.+)$", page, re.MULTILINE)
    assert sorted(headings) == sorted(" ".join(words) for words, _ in commands() if words)
    assert page.count("```console\n$ ") == len(headings)


def test_the_examples_of_files_are_settings(tmp_path: Path) -> None:
    page = PAGES["configuration.md"]()
    for language, name in (("toml", "pyproject.toml"), ("sh", ".env")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(block)
    loaded = load(tmp_path)
    assert {"url", "tls_ca", "pipelines.orders.max_in_flight"} <= {*loaded.origins}


def test_every_setting_is_there() -> None:
    page = PAGES["configuration.md"]()
    for name in {*Settings.model_fields, *pipeline_overrides().model_fields} - {"pipelines"}:
        assert f"| `{name}` |" in page
