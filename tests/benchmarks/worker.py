"""One measurement in a process of its own: takes a task as JSON, prints the measurement as JSON.

python -m tests.benchmarks.worker '{"run": "rstream_side.publish", "url": ..., "stream": ...}'
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.util import find_spec
from typing import Any

import anyio

from tests.benchmarks.measuring import Skipped, Target


def main(task: dict[str, Any]) -> None:
    module, _, function = task["run"].rpartition(".")
    target = Target(task["url"], task["stream"], task["messages"], task["options"])
    try:
        measure = getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)
        measured = anyio.run(
            measure,
            target,
            backend_options={"use_uvloop": find_spec("uvloop") is not None},
        )
    except Skipped as reason:
        measured = {"skipped": str(reason)}
    except ModuleNotFoundError as error:
        measured = {"skipped": f"{error.name} is not installed"}
    print(json.dumps(measured), flush=True)


main(json.loads(sys.argv[1]))
