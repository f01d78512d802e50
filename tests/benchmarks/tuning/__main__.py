"""The command: `python -m tests.benchmarks.tuning --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import broker
from tests.benchmarks.tuning.measure import measure
from tests.benchmarks.tuning.page import PICTURES, drawn, written
from tests.benchmarks.tuning.sweeps import SWEEPS

RECORDED = Path(__file__).with_name("recorded.json")
DOCS = Path(__file__).resolve().parents[3] / "docs"
IMAGES, PAGE = DOCS / "images", DOCS / "tuning.md"
OPTIONS = {sweep.name: sweep.option for sweep in SWEEPS}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.tuning",
        description="Measure what the options of a pipeline bring, and write docs/tuning.md.",
    )
    parser.add_argument("--only", choices=tuple(OPTIONS), action="append", metavar="SWEEP")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each point")
    parser.add_argument("--broker", default="4.0", help="as in python -m tests.benchmarks")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    recorded: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if not chosen.draw:
        with broker(chosen.broker) as (url, name):
            recorded["broker"] = name
            for sweep in SWEEPS:
                if chosen.only is None or sweep.name in chosen.only:
                    recorded[sweep.name] = measure(sweep, url, chosen.rounds, tell)
                    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")
        recorded = json.loads(RECORDED.read_text())
    PAGE.write_text(written(PAGE.read_text(), recorded, OPTIONS))
    for picture in PICTURES:
        (IMAGES / f"tuning-{picture.name}.svg").write_text(drawn(recorded, picture))


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
