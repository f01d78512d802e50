"""`python -m tests.simulation`: simulate, write the results into tables, draw curves.

    python -m tests.simulation                 the sizes of docs/scale.md: about half an hour
    python -m tests.simulation --small         a minute
    python -m tests.simulation --draw          only write the tables and draw the curves again

The results are in tests/simulation/recorded.json, the tables in docs/scale.md, the curves in
docs/images.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.simulation.scenarios import Result, simulate
from tests.support.curves import Curve, draw

RECORDED = Path(__file__).with_name("recorded.json")
DOCS = Path(__file__).resolve().parents[2] / "docs"
IMAGES, PAGE = DOCS / "images", DOCS / "scale.md"
BEGIN, END = "<!-- results of python -m tests.simulation -->", "<!-- end of results -->"

STAGGER = 0.5
"""Seconds between the starts of two workers, on average, where they do not start together."""

SMALL = ((16, 4), (64, 8))
LARGE = (
    *((64, workers) for workers in (2, 4, 8, 16, 32, 64)),
    *((256, workers) for workers in (4, 16, 64, 256)),
    *((1024, workers) for workers in (16, 64)),
)
STAGGERED = ((64, 4), (64, 8), (64, 16))
"""Sizes at which the workers also start one after the other, and are replaced one by one."""

LED = (*((64, workers) for workers in (2, 4, 8, 16, 32)), (256, 16))
"""Sizes at which the workers also are those of one parent, which lets them take turns."""

EVENTS = {
    "together": "Workers of several parents start together",
    "led": "The workers of one parent start",
    "kill": "The busiest worker is killed",
    "join": "A worker joins",
    "leave": "A worker drains",
    "node": "A node of the broker dies",
    "rebalance": "The parent has evened the load after a node died",
    "start": "Workers start one after the other",
    "roll": "Every worker is replaced, one after the other",
}

CURVES = (
    ("scale-start", "Seconds until every partition has its reader, all started together",
     "together", "seconds"),
    ("scale-takeover", "Seconds until all partitions of a killed worker are handled again", "kill",
     "takeover"),
    ("scale-moves", "Share of the partitions that move when a worker joins", "join", "share"),
    ("scale-balance", "Load of the busiest worker after a node of the broker died", "node", "most"),
)  # fmt: skip


def run(partitions: int, workers: int) -> dict[str, Result]:
    """The results of all events at a size."""
    rate = 20.0 if partitions <= 64 else 2.0
    found = simulate(
        *("kill", "join", "leave", "node"), partitions=partitions, workers=workers, rate=rate
    )
    found["together"] = found.pop("start")
    if (partitions, workers) in STAGGERED:
        within = STAGGER * workers
        found |= simulate("roll", partitions=partitions, workers=workers, within=within, rate=rate)
    return found


def run_led(partitions: int, workers: int) -> dict[str, Result]:
    """The results of the events that a parent has a part in."""
    rate = 20.0 if partitions <= 64 else 2.0
    found = simulate(
        "node", "rebalance", partitions=partitions, workers=workers, rate=rate, led=True
    )
    return {"led": found["start"], "rebalance": found["rebalance"]}


def simulate_all(sizes: tuple[tuple[int, int], ...], recorded: dict[str, Any]) -> None:
    todo = [("together", run, size) for size in sizes] + [("led", run_led, size) for size in LED]
    for first, simulated, (partitions, workers) in todo:
        if f"{first} {partitions} {workers}" in recorded:
            continue
        began = time.monotonic()
        found = simulated(partitions, workers)
        print(f"{partitions} {workers}: {time.monotonic() - began:.0f} s of computing", flush=True)
        for name, result in found.items():
            recorded[f"{name} {partitions} {workers}"] = asdict(result)
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")


def results(recorded: dict[str, Any], name: str) -> list[Result]:
    """The recorded results of an event, by partitions and workers."""
    found = [
        Result(**{**values, "load": tuple(values["load"])})
        for key, values in recorded.items()
        if key.split()[0] == name
    ]
    return sorted(found, key=lambda result: (result.partitions, len(result.load)))


def tables(recorded: dict[str, Any]) -> str:
    """The results as Markdown, a table for each event."""
    lines = []
    for name, title in EVENTS.items():
        lines += ["", f"**{title}**", ""]
        lines += ["| partitions | workers | seconds | moves | repeated | busiest | idle |"]
        lines += ["| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for each in results(recorded, name):
            seconds = max(each.seconds, each.takeover)
            lines.append(
                f"| {each.partitions:,} | {len(each.load)} | {seconds:.1f} | {each.moves:,} | "
                f"{each.repeated:,} | {each.most:.2f} | {each.idle} |"
            )
    return "\n".join(lines)


def written(page: str, recorded: dict[str, Any]) -> str:
    """The page with the tables of these results."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables(recorded)}\n\n{END}{after}"


def value(result: Result, what: str) -> float:
    if what == "share":
        return result.moves / result.partitions
    return float(getattr(result, what))


def curves(recorded: dict[str, Any], name: str, what: str) -> list[Curve]:
    """A figure of an event over the workers, for each number of partitions."""
    found = results(recorded, name)
    return [
        Curve(
            f"{partitions:,} partitions",
            [
                (len(each.load), value(each, what))
                for each in found
                if each.partitions == partitions
            ],
        )
        for partitions in sorted({each.partitions for each in found})
    ]


def draw_all(recorded: dict[str, Any]) -> None:
    for file, title, name, what in CURVES:
        (IMAGES / f"{file}.svg").write_text(draw(title, "workers", curves(recorded, name, what)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--draw", action="store_true")
    chosen = parser.parse_args()
    recorded: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if chosen.small:
        for partitions, workers in SMALL:
            for name, result in run(partitions, workers).items():
                print(name, result, flush=True)
        return
    if not chosen.draw:
        simulate_all(LARGE, recorded)
    PAGE.write_text(written(PAGE.read_text(), recorded))
    draw_all(recorded)


if __name__ == "__main__":
    main()
