"""What docs/conf.py makes of docstrings; that the site builds without warnings is `make docs`."""

from __future__ import annotations

import runpy

import pytest

from tests.documents import ROOT

as_rst = runpy.run_path(str(ROOT / "docs" / "conf.py"))["as_rst"]

CODE = """
Like this:

    pipeline.run()

    pipeline.stop()

And so on.
"""
CODE_RST = """
Like this:

::

    pipeline.run()

    pipeline.stop()

And so on.
"""

TABLE = """
| check | false |
| --- | --- |
| phase | at once |
"""
TABLE_RST = """

.. list-table::
   :header-rows: 1

   * - check
     - false
   * - phase
     - at once
"""

LIST = """
Either of
- one, which
  goes on
- two
"""
LIST_RST = """
Either of

- one, which
  goes on
- two
"""


@pytest.mark.parametrize(
    ("markdown", "rst"),
    [
        ("A sentence\nin two lines.", "A sentence\nin two lines."),
        (CODE, CODE_RST),
        (TABLE, TABLE_RST),
        (LIST, LIST_RST),
        ("- a list\n\n    of its own", "- a list\n\n    of its own"),
    ],
)
def test_docstrings(markdown: str, rst: str) -> None:
    said = as_rst(markdown.strip("\n").split("\n"))
    assert "\n".join(said).strip() == rst.strip()
