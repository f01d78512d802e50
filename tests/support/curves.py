"""Curves as SVG, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 40, 44
LABEL = 6
"""Pixels of a character of a label."""
COLOURS = ("#2f7ed8", "#d9822b", "#3a9d5d", "#a05195")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.title{font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}.curve{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]


def draw(title: str, across: str, curves: Sequence[Curve], *, decades: bool = False) -> str:
    """The curves over a logarithmic scale of `across`; with `decades`, upwards too."""
    points = [point for curve in curves for point in curve.points]
    xs = [x for x, _ in points] or [1.0]
    ys = [y for _, y in points] or [1.0]
    ticks = powers(min(ys), max(ys)) if decades else quarters(max(ys))
    bottom, top = ticks[0], ticks[-1]
    low, high = math.log2(min(xs)), math.log2(max(*xs, min(xs) * 2))

    def x_of(x: float) -> float:
        return LEFT + (math.log2(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        part = math.log(y / bottom) / math.log(top / bottom) if decades else y / top
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    def parts() -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
            f"<title>{title}</title><style>{STYLE}</style>"
        )
        yield f'<text class="title" x="{LEFT}" y="20">{title}</text>'
        for y in ticks:
            yield f'<path class="grid" d="M{LEFT} {y_of(y):.1f}H{WIDTH - RIGHT}"/>'
            yield f'<text x="{LEFT - 6}" y="{y_of(y) + 4:.1f}" text-anchor="end">{y:,g}</text>'
        for x in apart(sorted(set(xs)), x_of):
            yield (
                f'<text x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                f"{x:,g}</text>"
            )
        yield (
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 36}" text-anchor="end">'
            f"{across}</text>"
        )
        for number, curve in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            places = [(x_of(x), y_of(y)) for x, y in curve.points]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline class="curve" stroke="{colour}" points="{line}"/>'
            for x, y in places:
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
            y = TOP + 10 + 20 * number
            yield f'<circle cx="{WIDTH - RIGHT + 14}" cy="{y - 4}" r="4" fill="{colour}"/>'
            yield f'<text x="{WIDTH - RIGHT + 24}" y="{y}">{curve.name}</text>'
        yield "</svg>\n"

    return "\n".join(parts())


def quarters(most: float) -> list[float]:
    """Five ticks from 0 to the top of a scale."""
    return [nice(most) * step / 4 for step in range(5)]


def powers(least: float, most: float) -> list[float]:
    """The powers of ten from the one below the least value to the one above the most."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def apart(values: Sequence[float], x_of: Callable[[float], float]) -> list[float]:
    """The values whose labels have room beside each other."""
    kept: list[float] = []
    for value in values:
        if not kept or x_of(value) - x_of(kept[-1]) >= LABEL * len(f"{value:,g}") + LABEL:
            kept.append(value)
    return kept


def nice(value: float) -> float:
    """The next number that divides well by 4, not below the value."""
    if value <= 0:
        return 1.0
    step: float = 10 ** math.floor(math.log10(value))
    return next(step * n for n in (1, 2, 4, 8, 10, 20) if step * n >= value)
