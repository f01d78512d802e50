"""Every Python block of docs/ runs as it stands there (see tests/documents.py)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from flowstream.testing import broker_in_thread
from tests.documents import ROOT, blocks, run_page, run_pages
from tests.support.postgres import served_postgres

DOCS = ROOT / "docs"
GUIDES = (
    "index", "concepts", "handlers", "batchers", "sinks", "failures", "order", "sources",
    "own-producer", "resources", "programs", "typing", "environments", "client", "tuning",
    "exactly-once",
)  # fmt: skip
TOGETHER = {
    "cookbook": sorted(DOCS.glob("cookbook/*.md")),
    "coming from": sorted(DOCS.glob("coming-from/*.md")),
    "guides": [DOCS / f"{name}.md" for name in GUIDES],
}
"""Short pages, which run in one process."""
PAGES = sorted({*DOCS.rglob("*.md")} - {page for pages in TOGETHER.values() for page in pages})
LONG = {"testing.md", "tutorial.md", "files.md", "databases.md"}
"""Pages that take more than a second of CPU: with tests for pytest, or sinks with libraries."""
NEEDED = {"files.md": ("pyarrow", "fsspec"), "parquet.md": ("pyarrow",), "http.md": ("httpx",)}
"""Modules of extras without which a page does not run."""


@pytest.fixture
def url() -> Iterator[str]:
    with broker_in_thread() as broker:
        yield broker.url


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=pytest.mark.slow if page.name in LONG else (),
            id=str(page.relative_to(DOCS)),
        )
        for page in PAGES
    ],
)
def test_a_page_runs(page: Path, tmp_path: Path, url: str) -> None:
    for module in NEEDED.get(page.name, ()):
        pytest.importorskip(module, reason=f"{module} is not installed: flowstream[all]")
    run_page(page, tmp_path, url)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_pages_run_together(name: str, tmp_path: Path) -> None:
    pages = TOGETHER[name]
    lacking = {page: missing(page) for page in pages}
    run_pages([page for page in pages if not lacking[page]], tmp_path)
    assert pages
    if any(lacking.values()):
        names = ", ".join(sorted({name for found in lacking.values() for name in found}))
        pytest.skip(f"all passed but the pages that need {names}, which is not installed")


@pytest.mark.slow
def test_the_recipe_for_postgresql_runs_on_one(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_postgres() as server:
        monkeypatch.setenv("WAREHOUSE", server.database())
        run_page(DOCS / "cookbook" / "postgres.md", tmp_path, url)


def missing(page: Path) -> list[str]:
    """What a page needs and this environment does not have."""
    return [name for name in NEEDED.get(page.name, ()) if find_spec(name) is None]


def test_there_are_pages() -> None:
    assert PAGES


PAGE = """
# A page

```python
# shop/orders.py
PRICE = 3
```

```python
from shop.orders import PRICE
import anyio
```

```python
await anyio.sleep(0)
assert PRICE == 3 and BROKER_URL.startswith("rabbitmq-stream://")
open("ran", "w").close()
```

```python fragment
def no_program(...) -> ...: ...
```

```console
$ flowstream
```

```python
# test_shop.py
import shop.orders

def test_price():
    assert shop.orders.PRICE == 3
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return file


@pytest.mark.slow
def test_files_blocks_and_tests_of_a_page(page: Path, url: str) -> None:
    folder = page.parent / "folder"
    run_page(page, folder, url)
    assert (folder / "ran").exists()
    assert [block.line for block in blocks(page) if block.runs] == [10, 15]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("PRICE == 3 and", "PRICE == 4 and", "line 16"),
        ("PRICE == 3\n```", "PRICE == 4\n```", "test_price"),
    ],
)
def test_what_goes_wrong_in_a_page_is_told(
    page: Path, url: str, old: str, new: str, said: str
) -> None:
    page.write_text(page.read_text().replace(old, new))
    with pytest.raises(AssertionError, match=said):
        run_page(page, page.parent / "folder", url)
