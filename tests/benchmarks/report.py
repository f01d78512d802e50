"""The figures as tables for a terminal, lines for a pipe, and tables in Markdown pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.benchmarks.figures import Beside, Row, Spread

BLOCK = re.compile(
    r"(?P<begin><!-- bench(?: on (?P<broker>[\w.]+))?: (?P<names>[^>]+?) -->\n).*?"
    r"(?P<end><!-- end of bench -->)",
    re.DOTALL,
)
"""Where a page has a table: `<!-- bench on 4.0: sink, latency -->`, and its end. Without `on` the
table is of any broker. The names are those of scenarios, in the order of the rows."""


def caption(about: Mapping[str, Any], *, latency: bool = False) -> str:
    """What was measured, on what."""
    rounds = "one round" if about["rounds"] == 1 else f"medians of {about['rounds']} rounds"
    messages = f"{about['seconds']:g} s of" if latency else f"{about['messages']:,}"
    return (
        f"{messages} messages of {about['smallest']} to {about['largest']} bytes "
        f"({about['mean']:.0f} on average), {rounds}; "
        f"{about['broker']}, {about['cores']} cores, CPython {about['python']}, "
        f"rstream {about['rstream']}"
    )


# -- a terminal ----------------------------------------------------------------------


def table(title: str, rows: Sequence[Row]) -> Table:
    """A comparison as a table, with a line for each ratio."""
    made = Table(title=title, title_justify="left", title_style="bold")
    latency = _is_latency(rows)
    heads = LATENCY_HEADS if latency else RATE_HEADS
    for head in heads:
        made.add_column(head, justify="left" if head in ("", "beside") else "right")
    for row in rows:
        cells = _latency_cells(row) if latency else _rate_cells(row)
        ratios = LATENCY_RATIOS if latency else RATE_RATIOS
        if row.missing is not None:
            made.add_row(_titled(row), "-", *[""] * (len(cells) - 2), row.missing)
            continue
        beside = [[_name(each), *(_ratio(each, name) for name in ratios)] for each in row.beside]
        first, *others = beside or [[]]
        made.add_row(*cells, *first)
        for each in others:
            made.add_row(*[""] * len(cells), *each)
    return made


RATE_HEADS = ("", "messages/s", "low to high", "CPU s/million", "MiB", "beside", "x rate", "x CPU")
RATE_RATIOS = ("rate", "cpu")
LATENCY_RATIOS = ("p50_ms", "p99_ms", "cpu")
LATENCY_HEADS = ("", "p50 ms", "p99 ms", "p99.9 ms", "CPU s", "consumer + publisher", "beside",
                 "x p50", "x p99", "x CPU")  # fmt: skip


def _rate_cells(row: Row) -> list[str]:
    if row.missing is not None:
        return [""] * 5
    rate = row.figures["rate"]
    return [
        _titled(row),
        f"{rate.median:,.0f}",
        f"{rate.low:,.0f} to {rate.high:,.0f}",
        f"{row.figures['cpu'].median:.2f}",
        _memory(row.figures),
    ]


def _latency_cells(row: Row) -> list[str]:
    if row.missing is not None:
        return [""] * 6
    figures = row.figures
    return [
        _titled(row),
        *(f"{figures[name].median:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms", "cpu")),
        f"{figures['consumer_cpu'].median:.2f} + {figures['publisher_cpu'].median:.2f}",
    ]


def _titled(row: Row) -> str:
    return f"{row.name}: {row.title}"


def _name(beside: Beside) -> str:
    """A peer by its name, as at the beginning of its row; a recorded one by its title."""
    return beside.peer or beside.title


def _memory(figures: Mapping[str, Spread]) -> str:
    text = f"{figures['peak_mib'].median:.0f}"
    if "growth_mib" in figures:
        text += f" ({figures['growth_mib'].median:+.1f} from the first to the last quarter)"
    return text


def _ratio(beside: Beside, name: str) -> str:
    found = beside.ratios.get(name)
    return "" if found is None else _spread(found)


def _spread(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


# -- a pipe --------------------------------------------------------------------------


def lines(rows: Sequence[Row]) -> Iterable[str]:
    """A line for each scenario, and one for each ratio, to be read by people and by grep."""
    for row in rows:
        if row.missing is not None:
            yield f"{row.name}: {row.missing}"
            continue
        figures = row.figures
        if "rate" in figures:
            rate = figures["rate"]
            yield (
                f"{row.name}: {rate.median:,.0f} messages/s ({rate.low:,.0f} to {rate.high:,.0f}), "
                f"{figures['cpu'].median:.2f} CPU s a million, {_memory(figures)} MiB"
            )
        else:
            quantiles = ", ".join(
                f"{label} {figures[name].median:.2f} ms"
                for label, name in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))
            )
            yield (
                f"{row.name}: {quantiles}, {figures['consumer_cpu'].median:.2f} CPU s to consume, "
                f"{figures['publisher_cpu'].median:.2f} to publish"
            )
        for each in row.beside:
            shown = ("rate", "p50_ms", "p99_ms", "cpu")
            parts = [f"{name} x {_ratio(each, name)}" for name in shown if name in each.ratios]
            yield f"{row.name} beside {_name(each)}: {', '.join(parts)}"


# -- Markdown ------------------------------------------------------------------------


def rewrite(
    page: Path, found: Mapping[str, Row], broker: str, about: Mapping[str, Any]
) -> list[str]:
    """Make the tables of a page again from the rows; the blocks that stay, and why, as texts."""
    kept: list[str] = []

    def again(block: re.Match[str]) -> str:
        names = [name.strip() for name in block["names"].split(",")]
        if block["broker"] not in (None, broker):
            return block[0]
        missing = [name for name in names if name not in found or found[name].missing]
        if missing:
            kept.append(f"{page}: the table of {', '.join(names)} stays: no {', '.join(missing)}")
            return block[0]
        rows = [found[name] for name in names]
        above = caption(about, latency=_is_latency(rows))
        return f"{block['begin']}\n{above}:\n\n{markdown(rows)}\n\n{block['end']}"

    page.write_text(BLOCK.sub(again, page.read_text()))
    return kept


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown: a line for each ratio."""
    if _is_latency(rows):
        head = "| | p50 ms | p99 ms | p99.9 ms | CPU s, consumer and publisher |"
        made = [head, "| --- | ---: | ---: | ---: | ---: |"]
        for row in rows:
            names = ("p50_ms", "p99_ms", "p999_ms")
            cells = [f"{row.figures[name].median:.1f}" for name in names]
            made.append(f"| {row.title} | {' | '.join(cells)} | {row.figures['cpu'].median:.1f} |")
        return "\n".join(made)
    made = [
        "| | messages/s | CPU s a million | beside | ratio of rates (low to high) |",
        "| --- | ---: | ---: | --- | ---: |",
    ]
    for row in rows:
        rate, cpu = row.figures["rate"].median, row.figures["cpu"].median
        mine = f"| {row.title} | {_rounded(rate):,} | {cpu:.2f} |"
        made += [f"{mine} {each.title} | {_ratio(each, 'rate')} |" for each in row.beside]
        if not row.beside:
            made.append(f"{mine} | |")
    return "\n".join(made)


def _rounded(rate: float) -> int:
    return round(rate / 1000) * 1000


def _is_latency(rows: Sequence[Row]) -> bool:
    return any("p50_ms" in row.figures for row in rows)
