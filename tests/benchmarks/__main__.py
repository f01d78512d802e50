"""The command: `python -m tests.benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.bodies import distinct
from tests.benchmarks.figures import Measurement, Row, rows
from tests.benchmarks.harness import Harness, broker
from tests.benchmarks.scenarios import COMPARISONS, Comparison
from tests.benchmarks.schedule import choose


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.list:
        for comparison in COMPARISONS:
            print(f"{comparison.name}: {comparison.title}")
            for scenario in comparison.scenarios:
                print(f"  {scenario.name}: {scenario.title}")
        return 0
    try:
        chosen = choose(COMPARISONS, [name for each in options.only for name in each.split(",")])
        needs_broker = any(comparison.stream is not None for comparison in chosen)
        with broker(options.broker) if needs_broker else nullcontext(("", "no broker")) as found:
            return _measure(options, chosen, *found)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure flowstream beside rstream, each in fresh processes that take turns.",
    )
    option = parser.add_argument
    option("--only", metavar="NAME[,NAME]", action="append", default=[],
           help="comparisons, or scenarios with those that they are compared with")  # fmt: skip
    option("--list", action="store_true", help="show the names, and measure nothing")
    option("--rounds", type=int, default=5, help="processes of each scenario (default: 5)")
    option("--messages", type=int, default=1_000_000, help="of each process (default: 1000000)")
    option("--seconds", type=float, default=20.0, help="of each latency (default: 20)")
    option("--broker", default="4.0", metavar="NAME",
           help="3.10, 4.0 or 4.3 (`make brokers`), embedded, or a URL (default: 4.0)")  # fmt: skip
    option("--json", metavar="FILE", type=_new_file, help="write every measurement there")
    option("--markdown", metavar="FILE", type=_page, action="append", default=[],
           help="make the tables of this page again (between `<!-- bench: NAMES -->` and "
                "`<!-- end of bench -->`)")  # fmt: skip
    return parser.parse_args(arguments)


def _page(name: str) -> Path:
    """A page that exists: after half an hour of measuring it is too late to report a wrong name."""
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"{name}: there is no such file")
    return Path(name)


def _new_file(name: str) -> Path:
    if not Path(name).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name}: there is no such folder")
    return Path(name)


def _measure(
    options: argparse.Namespace, chosen: Sequence[Comparison], url: str, broker_name: str
) -> int:
    sizes = [len(body) for body in distinct()]
    about = {
        "messages": options.messages,
        "smallest": min(sizes),
        "largest": max(sizes),
        "mean": sum(sizes) / len(sizes),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "broker": broker_name,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rstream": version("rstream"),
    }
    console = Console()
    harness = Harness(
        url,
        messages=options.messages,
        rounds=options.rounds,
        seconds=options.seconds,
        tell=_progress,
    )
    found: dict[str, list[Row]] = {}
    if not console.is_terminal:
        print(report.caption(about), flush=True)
    try:
        for comparison in chosen:
            harness.measure(comparison)
            found[comparison.title] = rows(comparison, harness.measurements, harness.missing)
            if not console.is_terminal:
                print(f"\n{comparison.title}")
                print(*report.lines(found[comparison.title]), sep="\n", flush=True)
    finally:
        harness.close()
    if console.is_terminal:
        console.print(report.caption(about), highlight=False)
        for title, some in found.items():
            console.print(report.table(title, some))
    _write(options, about, harness, [row for some in found.values() for row in some])
    for failed in harness.failed:
        print(failed, file=sys.stderr)
    return 1 if harness.failed else 0


def _progress(text: str) -> None:
    """A line for who waits at a terminal; a pipe has the figures of each comparison."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _write(
    options: argparse.Namespace, about: dict[str, Any], harness: Harness, found: list[Row]
) -> None:
    if options.json:
        figures = {
            "about": about,
            "measurements": {
                name: [_plain(one) for one in some] for name, some in harness.measurements.items()
            },
            "missing": harness.missing,
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    by_name = {row.name: row for row in found}
    for page in options.markdown:
        for kept in report.rewrite(page, by_name, options.broker, about):
            print(kept, file=sys.stderr)


def _plain(one: Measurement) -> dict[str, Any]:
    return {"round": one.round, "seed": one.seed, **one.measured}


if __name__ == "__main__":
    sys.exit(main())
