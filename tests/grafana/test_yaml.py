"""What is written as YAML is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flowstream.monitor.dashboards.yaml import dump

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)
SCALARS = (
    TEXT | st.integers() | st.booleans() | st.none() | st.sampled_from(["no", "1", "~", "1e3"])
)
DOCUMENTS = st.dictionaries(
    TEXT,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, min_size=1) | st.dictionaries(TEXT, inner, min_size=1),
        max_leaves=6,
    ),
    min_size=1,
)


@pytest.mark.slow
@given(DOCUMENTS)
def test_any_document_survives(document: Any) -> None:
    assert yaml.safe_load(dump(document)) == document


@pytest.mark.parametrize(
    "document",
    [
        {"a": "one\ntwo\n  three"},
        {"a": ["one\ntwo", {"b": "three\nfour", "c": []}], "d": {}},
        {"a": [[1, 2], [{"b": 3}]]},
        {"on": "off", "y": "10m", "n": ": #", "time": "12:30"},
    ],
)
def test_blocks_survive(document: Any) -> None:
    assert yaml.safe_load(dump(document)) == document


def test_a_comment_goes_before() -> None:
    assert dump({"a": 1}, comment="one\n\ntwo") == "# one\n#\n# two\na: 1\n"
