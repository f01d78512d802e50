"""Every Python block of docs/ runs as it stands there (see tests/documents.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.testing import broker_in_thread
from tests.documents import ROOT, blocks, run_page

PAGES = sorted((ROOT / "docs").rglob("*.md"))
LONG = {"testing.md", "tutorial.md"}
"""Pages whose tests are run by pytest."""
NEEDED = {"files.md": ("pyarrow", "fsspec")}
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
            id=str(page.relative_to(ROOT / "docs")),
        )
        for page in PAGES
    ],
)
def test_a_page_runs(page: Path, tmp_path: Path, url: str) -> None:
    for module in NEEDED.get(page.name, ()):
        pytest.importorskip(module, reason=f"{module} is not installed: flowstream[all]")
    run_page(page, tmp_path, url)


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
