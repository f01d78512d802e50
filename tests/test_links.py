"""Links between the pages lead somewhere, anchors included, and every page is in one toctree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    words = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", word).replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for name, anchor in LINK.findall(FENCE.sub("", page.read_text())):
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target)
        ):
            wrong.append(f"{name}#{anchor}")
    assert wrong == []


def test_every_page_is_in_one_toctree() -> None:
    listed = [
        (index.parent / f"{entry}.md").resolve()
        for index in DOCS.rglob("index.md")
        for tree in TOCTREE.findall(index.read_text())
        for entry in tree.split()
        if not entry.startswith(":") and (index.parent / f"{entry}.md").exists()
    ]
    assert sorted(listed) == sorted({*DOCS.rglob("*.md")} - {DOCS / "index.md"})


def test_every_guide_is_in_the_table_by_task() -> None:
    page = TOCTREE.sub("", (DOCS / "index.md").read_text())
    linked = {(DOCS / name).resolve() for name, _ in LINK.findall(page)}
    assert {*DOCS.glob("*.md")} - linked - {DOCS / "index.md"} == set()
