"""One measurement in a process of its own: prints the seconds it took.

python -m tests.benchmarks.worker rstream_side.publish_raw URL STREAM MESSAGES
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.util import find_spec

import anyio

from tests.benchmarks.target import Target


def main(scenario: str, url: str, stream: str, messages: str) -> None:
    module, _, function = scenario.partition(".")
    measure = getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)
    seconds = anyio.run(
        measure,
        Target(url, stream, int(messages)),
        backend_options={"use_uvloop": find_spec("uvloop") is not None},
    )
    print(json.dumps({"seconds": seconds}))


main(*sys.argv[1:])
