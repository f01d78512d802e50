"""The documentation site: `make docs` builds it into site/, with every warning an error.

Nothing is loaded from elsewhere, neither while it is built nor by a reader's browser. Docstrings
are written in Markdown's few habits (single backticks, indented code, tables); `as_rst` makes of
them what autodoc reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import flowstream
from flowstream.schema import listed

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.pycode import ModuleAnalyzer

project = "flowstream"
author = "the flowstream authors"
version = release = flowstream.__version__
html_title = f"flowstream {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_heading_anchors = 4
myst_links_external_new_tab = False

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True

SHOWN_MODULES = {"flowstream.errors"}
"""Modules whose own docstring is for readers of the site; those of rooms are for their authors."""

ROW = re.compile(r"\|(.+)\|\s*$")
RULE = re.compile(r"\|[\s:|-]+\|\s*$")


def as_rst(lines: list[str]) -> list[str]:
    """A docstring's lines, its tables and indented code marked as reStructuredText wants them."""
    return [*_lists(_code(_tables(lines)))]


def _tables(lines: list[str]) -> Iterator[str]:
    rows: list[list[str]] = []
    for line in [*lines, ""]:
        if ROW.match(line):
            if not RULE.match(line):
                rows.append([cell.strip() for cell in line.strip()[1:-1].split("|")])
            continue
        if rows:
            yield from ("", ".. list-table::", "   :header-rows: 1", "")
            for row in rows:
                yield from (
                    f"   {'* -' if not at else '  -'} {cell}" for at, cell in enumerate(row)
                )
            rows = []
        yield line


def _code(lines: Iterator[str]) -> Iterator[str]:
    """Text that is indented by four behind an empty line is code, unless a list goes on there."""
    before, inside, listed = "", False, False
    for line in lines:
        if line.startswith("    ") and not before.strip() and not inside and not listed:
            yield from ("::", "")
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside, listed = False, line.startswith(("- ", "* ", "1. ", ".. "))
        yield line
        before = line


def _lists(lines: Iterator[str]) -> Iterator[str]:
    """A list may follow its paragraph without an empty line in between."""
    before = ""
    for line in lines:
        if line.startswith(("- ", "* ")) and before and not before.startswith((" ", "- ", "* ")):
            yield ""
        yield line
        before = line


def process(_: Sphinx, what: str, name: str, value: Any, *rest: Any) -> None:
    lines: list[str] = rest[-1]
    schema = getattr(getattr(value, "__init__", None), "__schema__", None)
    if what == "class" and schema is not None:
        lines += ["", *listed(schema)]
    lines[:] = [] if what == "module" and name not in SHOWN_MODULES else as_rst(lines)


def without_overloads(analyze: Callable[[ModuleAnalyzer], None]) -> Callable[[Any], None]:
    """Let autodoc show a method's own signature: its overloads take `*arguments, **values`.

    They are for type checkers, to which flowstream/schema.py gives the options one by one.
    """

    def and_forget(analyzer: Any) -> None:
        analyze(analyzer)
        if analyzer.modname == "flowstream.pipeline.pipeline":
            analyzer.overloads = {}

    return and_forget


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", process)
    from sphinx.pycode import ModuleAnalyzer

    ModuleAnalyzer.analyze = without_overloads(ModuleAnalyzer.analyze)
