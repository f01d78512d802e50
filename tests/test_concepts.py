"""The code of docs/concepts.md runs as it stands there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "concepts.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("source", BLOCKS)
def test_the_code_runs(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("concepts_block")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(source, "concepts.md", "exec"), made.__dict__)
