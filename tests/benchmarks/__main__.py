"""The harness: prepares streams, lets the peers take turns, prints the table."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import uuid
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console
from rich.table import Table

from flowstream.client import Environment
from tests.benchmarks.scenarios import COMPARISONS, Comparison, bodies
from tests.brokers.running import running

BROKER = "4.0"
FILL_BATCH = 1_000


def main() -> None:
    options = parse()
    chosen = [
        comparison
        for comparison in COMPARISONS
        if not options.names or any(comparison.name.startswith(name) for name in options.names)
    ]
    if not chosen:
        sys.exit(f"no comparison begins with {' or '.join(options.names)}")
    url, broker = find_broker(options) if any(c.stream for c in chosen) else ("", "none")
    rows = Run(url, options.messages, options.rounds).all(chosen)
    figures = {
        "python": platform.python_version(),
        "rstream": version("rstream"),
        "broker": broker,
        "messages": options.messages,
        "rounds": options.rounds,
        "comparisons": rows,
    }
    show(figures)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", help="comparisons, by the beginning of their names")
    parser.add_argument("--url", help="a broker's address; else the one `make brokers` started")
    parser.add_argument("--broker", default=BROKER, help="which of those: 3.10, 4.0, 4.3")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    return parser.parse_args()


def find_broker(options: argparse.Namespace) -> tuple[str, str]:
    """The address to measure on, and what to call it."""
    if options.url:
        return options.url, "the broker at --url"
    nodes = running().get(options.broker)
    if not nodes:
        sys.exit(
            f"RabbitMQ {options.broker} is not up: run `make brokers` (as root), or give --url"
        )
    return nodes[0].url, "RabbitMQ " + ".".join(map(str, nodes[0].version))


class Run:
    """One run of comparisons on one broker; streams are its own and deleted after it."""

    def __init__(self, url: str, messages: int, rounds: int) -> None:
        self._url = url
        self._messages = messages
        self._rounds = rounds
        self._prefix = f"benchmark.{uuid.uuid4().hex[:8]}"
        self._filled: dict[str, str] = {}

    def all(self, chosen: list[Comparison]) -> list[dict[str, Any]]:
        try:
            return [self._compare(comparison) for comparison in chosen]
        finally:
            for stream in self._filled.values():
                anyio.run(delete_stream, self._url, stream)

    def _compare(self, comparison: Comparison) -> dict[str, Any]:
        rates: dict[str, list[float]] = defaultdict(list)
        sides = [("ours", comparison.ours)]
        if comparison.peer:
            sides.insert(0, ("peer", comparison.peer))
        for _ in range(self._rounds):
            for side, scenario in sides:
                rate = self._measure(comparison, scenario)
                rates[side].append(rate)
                print(f"  {comparison.name} {side}: {rate:,.0f}/s", file=sys.stderr)
        ours = statistics.median(rates["ours"])
        peer = statistics.median(rates["peer"]) if rates["peer"] else comparison.figure
        assert peer is not None
        return {
            "name": comparison.name,
            "title": comparison.title,
            "ours": ours,
            "peer": peer,
            "peer_title": comparison.peer_title,
            "measured_together": comparison.peer is not None,
            "ratio": self._ratio(rates, peer),
            "target": comparison.target,
            "rates": dict(rates),
        }

    @staticmethod
    def _ratio(rates: dict[str, list[float]], peer: float) -> float:
        """The median of the rounds' ratios: what slows a whole round down cancels out."""
        peers = rates["peer"] or [peer] * len(rates["ours"])
        return statistics.median(a / b for a, b in zip(rates["ours"], peers, strict=True))

    def _measure(self, comparison: Comparison, scenario: str) -> float:
        """Messages per second of one fresh process."""
        if comparison.stream == "empty":
            stream = f"{self._prefix}.{uuid.uuid4().hex[:8]}"
            anyio.run(create_stream, self._url, stream)
            try:
                return self._worker(scenario, stream)
            finally:
                anyio.run(delete_stream, self._url, stream)
        return self._worker(scenario, self._full_stream(comparison.stream))

    def _full_stream(self, kind: str | None) -> str:
        if kind is None:
            return ""
        if kind not in self._filled:
            self._filled[kind] = f"{self._prefix}.{kind}"
            anyio.run(fill_stream, self._url, self._filled[kind], kind, self._messages)
        return self._filled[kind]

    def _worker(self, scenario: str, stream: str) -> float:
        command = [sys.executable, "-m", "tests.benchmarks.worker", scenario, self._url]
        done = subprocess.run(
            [*command, stream, str(self._messages)], stdout=subprocess.PIPE, text=True, check=True
        )
        return self._messages / float(json.loads(done.stdout)["seconds"])


async def create_stream(url: str, stream: str) -> None:
    async with Environment(url) as environment:
        await environment.create_stream(stream)


async def delete_stream(url: str, stream: str) -> None:
    async with Environment(url) as environment:
        await environment.delete_stream(stream)


async def fill_stream(url: str, stream: str, kind: str, messages: int) -> None:
    from flowstream.protocol import encode_data_all

    await create_stream(url, stream)
    data = bodies(messages)
    if kind == "amqp":
        data = encode_data_all(data)
    async with Environment(url) as environment, environment.publisher(stream) as publisher:
        for first in range(0, len(data), FILL_BATCH):
            await publisher.send_many(data[first : first + FILL_BATCH])
        await publisher.flush()


def show(figures: dict[str, Any]) -> None:
    """The table, as plain text of any width in a pipe."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    title = (
        f"{figures['messages']:,} messages of 100 bytes, medians of {figures['rounds']} rounds, "
        f"{figures['broker']}, Python {figures['python']}, rstream {figures['rstream']}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("comparison", "flowstream", "peer", "ratio", "target", "met"):
        right = column in {"flowstream", "ratio", "target"}
        table.add_column(column, justify="right" if right else "left")
    for row in figures["comparisons"]:
        beside = "" if row["measured_together"] else " (measured before)"
        table.add_row(
            row["title"],
            f"{row['ours']:,.0f}/s",
            f"{row['peer']:,.0f}/s {row['peer_title']}{beside}",
            f"{row['ratio']:.2f}x",
            f"{row['target']:.2f}x",
            "yes" if row["ratio"] >= row["target"] else "NO",
        )
    console.print(table)


main()
