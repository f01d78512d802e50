"""Tables for terminals, lines for pipes, and tables in pages."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from tests.benchmarks.figures import Beside, Row, Spread
from tests.benchmarks.report import lines, markdown, rewrite, table


def one(figure: float) -> Spread:
    return Spread(figure, figure, figure)


def ratio(title: str, rate: float, cpu: float) -> Beside:
    ratios = {"rate": Spread(rate, rate - 0.1, rate + 0.1), "cpu": one(cpu)}
    return Beside(title, ratios, title.lower())


FIGURES = {"rate": Spread(400_123, 390_000, 410_000), "cpu": one(1.25), "peak_mib": one(51)}
PEERS = (ratio("Slow", 4.0, 0.25), ratio("Fast", 1.0, 1.0))
ROWS = [
    Row("fast", "fast", FIGURES),
    Row("ours", "ours", {**FIGURES, "growth_mib": one(0.5)}, PEERS),
    Row("later", "later", missing="skipped: not there yet"),
]
QUANTILES = {"p50_ms": one(1.5), "p99_ms": one(3.0), "p999_ms": one(4.5)}
LATENCY = Row(
    "latency",
    "a handler",
    {**QUANTILES, "cpu": one(5.0), "consumer_cpu": one(2.0), "publisher_cpu": one(3.0)},
    (Beside("Bare", {"p50_ms": one(1.1), "p99_ms": one(0.9), "cpu": one(1.2)}, "bare"),),
)


def drawn(rows: list[Row]) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(table("Title", rows))
    return capture.get()


def test_a_table_has_every_ratio() -> None:
    text = drawn(ROWS)
    assert "400,123" in text
    assert "390,000 to 410,000" in text
    assert "4.00 (3.90 to 4.10)" in text
    assert "1.00 (0.90 to 1.10)" in text
    assert "51 (+0.5 from the first to the last quarter)" in text
    assert "skipped: not there yet" in text
    assert len([line for line in text.splitlines() if "slow" in line and "4.00" in line]) == 1


def test_a_table_of_latencies() -> None:
    text = drawn([LATENCY])
    assert "2.00 + 3.00" in text
    assert "1.10 (1.10 to 1.10)" in text


def test_lines() -> None:
    assert list(lines([*ROWS, LATENCY])) == [
        "fast: 400,123 messages/s (390,000 to 410,000), 1.25 CPU s a million, 51 MiB",
        "ours: 400,123 messages/s (390,000 to 410,000), 1.25 CPU s a million, "
        "51 (+0.5 from the first to the last quarter) MiB",
        "ours beside slow: rate x 4.00 (3.90 to 4.10), cpu x 0.25 (0.25 to 0.25)",
        "ours beside fast: rate x 1.00 (0.90 to 1.10), cpu x 1.00 (1.00 to 1.00)",
        "later: skipped: not there yet",
        "latency: p50 1.50 ms, p99 3.00 ms, p99.9 4.50 ms, 2.00 CPU s to consume, 3.00 to publish",
        "latency beside bare: p50_ms x 1.10 (1.10 to 1.10), p99_ms x 0.90 (0.90 to 0.90), "
        "cpu x 1.20 (1.20 to 1.20)",
    ]


def test_markdown() -> None:
    assert markdown(ROWS[:2]).splitlines() == [
        "| | messages/s | CPU s a million | beside | ratio of rates (low to high) |",
        "| --- | ---: | ---: | --- | ---: |",
        "| fast | 400,000 | 1.25 | | |",
        "| ours | 400,000 | 1.25 | Slow | 4.00 (3.90 to 4.10) |",
        "| ours | 400,000 | 1.25 | Fast | 1.00 (0.90 to 1.10) |",
    ]
    assert markdown([LATENCY]).splitlines()[-1] == "| a handler | 1.5 | 3.0 | 4.5 | 5.0 |"


ABOUT = {
    "messages": 1000, "seconds": 20.0, "smallest": 90, "largest": 130, "mean": 110.2, "rounds": 1,
    "broker": "RabbitMQ 4.0.5", "cores": 2, "python": "3.11.7", "rstream": "1.1.1",
}  # fmt: skip


def test_a_table_of_latencies_says_for_how_long_it_was_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench: a -->\n<!-- end of bench -->\n")
    rewrite(page, {"a": LATENCY}, "4.0", ABOUT)
    assert "\n20 s of messages of 90 to 130 bytes" in page.read_text()


def test_the_tables_of_a_page_are_made_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Before.\n"
        "<!-- bench: fast -->\nold\n<!-- end of bench -->\n"
        "<!-- bench on 3.10: fast -->\nother broker\n<!-- end of bench -->\n"
        "<!-- bench: fast, later -->\nstays\n<!-- end of bench -->\n"
        "After.\n"
    )
    by_name = {row.name: row for row in ROWS}
    kept = rewrite(page, by_name, "4.0", ABOUT)
    text = page.read_text()
    assert "old" not in text
    assert "1,000 messages of 90 to 130 bytes (110 on average), one round; RabbitMQ 4.0.5" in text
    assert "rstream 1.1.1:\n\n| | messages/s" in text
    assert "other broker" in text
    assert "stays" in text
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert kept == [f"{page}: the table of fast, later stays: no later"]
    again = text
    rewrite(page, by_name, "4.0", ABOUT)
    assert page.read_text() == again
