"""Draws the pictures of the docs from the texts beside this file: `python docs/drawings/draw.py`.

Each NAME.txt becomes ../images/NAME.svg. A line is one thing to draw; sizes are in pixels, and a
drawing is at most 520 wide, so that it can be read on a phone:

    title TEXT                      what the picture says, for those who do not see it
    size WIDTH HEIGHT
    box ID X Y W H TEXT | TEXT      lines of text in a box; `soft` is a frame around others
    arrow ID ID TEXT                from one box to another; `back` is dashed
    cells X Y FIRST STATE ...       offsets from FIRST on, as a row: ok, open, failed, done, free
    mark X Y TEXT                   a text with an arrow up to what it is about; `over`: down
    text X Y TEXT | TEXT

The colours follow the reader's setting for light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "images"
CELL = 44
STYLE = """
svg { --ink: #1b2733; --soft: #5b6b7b; --line: #7d8fa1; --paper: #ffffff; --box: #eef3f8;
  --ok: #cfe8d5; --open: #ffe7ad; --failed: #f7cfcb; --done: #d5e3f7; --free: #f4f6f8; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8eef4; --soft: #9fb0c0; --line: #71869b;
  --paper: #131416; --box: #22303d; --ok: #1f5136; --open: #6b5212; --failed: #6d2a26;
  --done: #234a7a; --free: #1c2329; } }
text { font: 14px system-ui, "DejaVu Sans", sans-serif; fill: var(--ink); }
.small { font-size: 13px; fill: var(--soft); }
.first { font-weight: 600; }
rect { fill: var(--box); stroke: var(--line); stroke-width: 1.2; }
.frame { fill: none; stroke-dasharray: 5 4; }
.paper { fill: var(--paper); stroke: none; }
path { fill: none; stroke: var(--line); stroke-width: 1.6; }
.back { stroke-dasharray: 6 4; }
marker path { fill: var(--line); stroke: none; }
""".strip()
STATES = ("ok", "open", "failed", "done", "free")

Box = tuple[float, float, float, float]


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.split("|")]


def text_at(
    x: float, y: float, lines: list[str], kind: str, anchor: str = "middle"
) -> Iterator[str]:
    for row, line in enumerate(lines):
        name = kind if kind != "box" else ("first" if row == 0 else "small")
        yield (
            f'<text x="{x:g}" y="{y + 19 * row:g}" class="{name}" text-anchor="{anchor}">'
            f"{escape(line)}</text>"
        )


def box(kind: str, at: Box, label: str) -> Iterator[str]:
    x, y, width, height = at
    lines = lines_of(label)
    frame = ' class="frame"' if kind == "soft" else ""
    yield f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"{frame}/>'
    if kind == "soft":
        yield from text_at(x + 12, y + 22, lines, "small", "start")
    else:
        top = y + height / 2 + 5 - 19 * (len(lines) - 1) / 2
        yield from text_at(x + width / 2, top, lines, "box")


def ends(a: Box, b: Box) -> tuple[float, float, float, float]:
    """Where an arrow leaves one box and meets the other: straight down, up, or to a side."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    left, right = max(ax, bx), min(ax + aw, bx + bw)
    if left < right:  # one above the other
        middle = (left + right) / 2
        return (middle, ay + ah, middle, by) if by > ay else (middle, ay, middle, by + bh)
    middle = (max(ay, by) + min(ay + ah, by + bh)) / 2
    return (ax + aw, middle, bx, middle) if bx > ax else (ax, middle, bx + bw, middle)


def arrow(kind: str, a: Box, b: Box, label: str) -> Iterator[str]:
    x1, y1, x2, y2 = ends(a, b)
    dashed = ' class="back"' if kind == "back" else ""
    yield f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" marker-end="url(#tip)"{dashed}/>'
    lines = [line for line in lines_of(label) if line]
    if x1 == x2:
        top = (y1 + y2) / 2 + 5 - 19 * (len(lines) - 1) / 2
        yield from text_at(x1 + 10, top, lines, "small", "start")
    else:
        yield from text_at((x1 + x2) / 2, y1 - 8 - 19 * (len(lines) - 1), lines, "small")


def cells(x: float, y: float, first: int, states: list[str]) -> Iterator[str]:
    for index, state in enumerate(states):
        if state not in STATES:
            raise ValueError(f"{state!r} is no state of a cell: {', '.join(STATES)}")
        left = x + CELL * index
        fill = f"fill: var(--{state})"
        yield f'<rect x="{left:g}" y="{y:g}" width="{CELL}" height="36" style="{fill}"/>'
        yield from text_at(left + CELL / 2, y + 23, [str(first + index)], "number")


def shapes(source: str, size: list[float]) -> Iterator[str]:
    """The elements of a drawing, in the order of its lines; `size` gets its size."""
    boxes: dict[str, Box] = {}
    for line in source.splitlines():
        kind, _, rest = line.partition(" ")
        if not line or kind == "title":
            continue
        if kind == "size":
            size[:] = [float(word) for word in rest.split()]
        elif kind in ("box", "soft"):
            name, x, y, width, height, label = rest.split(None, 5)
            boxes[name] = float(x), float(y), float(width), float(height)
            yield from box(kind, boxes[name], label)
        elif kind in ("arrow", "back"):
            a, b, *words = rest.split(None, 2)
            yield from arrow(kind, boxes[a], boxes[b], *words or [""])
        elif kind == "cells":
            left, top, first, *states = rest.split()
            yield from cells(float(left), float(top), int(first), states)
        elif kind in ("text", "mark", "over"):
            left, top, label = rest.split(None, 2)
            if kind != "text":
                start, way = (-16, -20) if kind == "mark" else (6, 20)
                yield f'<path d="M{left} {float(top) + start:g} v{way}" marker-end="url(#tip)"/>'
            anchor = "start" if kind == "text" else "middle"
            yield from text_at(float(left), float(top), lines_of(label), "small", anchor)
        else:
            raise ValueError(f"unknown line: {line}")


def drawing(source: str) -> str:
    """The SVG of a text."""
    size: list[float] = []
    elements = list(shapes(source, size))
    (title,) = [line[6:] for line in source.splitlines() if line.startswith("title ")]
    width, height = size
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" role="img" aria-label="{escape(title)}">'
    )
    paper = f'<rect class="paper" width="{width:g}" height="{height:g}"/>'
    parts = [head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", tip, paper]
    return "\n".join([*parts, *elements, "</svg>"]) + "\n"


def main() -> None:
    for source in sorted(FOLDER.glob("*.txt")):
        (IMAGES / f"{source.stem}.svg").write_text(drawing(source.read_text()))


if __name__ == "__main__":
    main()
