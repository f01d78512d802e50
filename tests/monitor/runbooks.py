"""Writes the runbooks that the live page links to, from those of the docs.

python -m tests.monitor.runbooks

They are in the package, so that the link works wherever a run does, also without the internet.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs" / "operations.md"
WRITTEN = ROOT / "flowstream" / "monitor" / "page" / "runbooks.html"

PAGE = """\
<!doctype html>
<!-- Written by `python -m tests.monitor.runbooks` from docs/operations.md; do not edit. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Runbooks of flowstream</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page/style.css">
</head>
<body>
<header><h1>Runbooks</h1><a href="./">to the live page</a></header>
<main class="runbooks">
{contents}
{body}
</main>
</body>
</html>
"""


def runbooks() -> str:
    """The page."""
    text = SOURCE.read_text().split("\n## Runbooks\n", 1)[1]
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(text)
    names = [_named(tokens, index) for index, it in enumerate(tokens) if it.type == "heading_open"]
    for token in tokens:
        _local(token)
    links = "".join(f'<li><a href="#{name.lower()}">{escape(name)}</a></li>\n' for name in names)
    body = parser.renderer.render(tokens, parser.options, {})
    contents = f'<nav aria-label="Runbooks"><ul>\n{links}</ul></nav>'
    return PAGE.format(contents=contents, body=body.replace("<pre>", '<pre tabindex="0">'))


def _named(tokens: list[Token], index: int) -> str:
    """Give a heading its anchor; a level up, since the title is no part of it."""
    name = tokens[index + 1].content
    for token in (tokens[index], tokens[index + 2]):
        token.tag = f"h{int(token.tag[1]) - 1}"
    tokens[index].attrSet("id", re.sub(r"[^a-z0-9]+", "-", name.lower()))
    return name


def _local(token: Token) -> None:
    """Links lead to other runbooks; to other pages of the docs there is only their name."""
    children = token.children or []
    kept, outside = [], 0
    for child in children:
        if child.type == "link_open" and not str(child.attrGet("href")).startswith("#"):
            outside += 1
        elif child.type == "link_close" and outside:
            outside -= 1
        else:
            kept.append(child)
    token.children = kept or token.children


def main() -> None:
    WRITTEN.write_text(runbooks())
    print(f"{WRITTEN.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
