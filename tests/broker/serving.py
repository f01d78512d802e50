"""A broker in a process of its own, to be killed: `python -m tests.broker.serving DATA`."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from flowstream.broker import Broker


async def serve(data: Path) -> None:
    async with Broker(port=0, data=data) as broker:
        print(broker.url, flush=True)
        await anyio.sleep_forever()


@contextmanager
def served(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL; killed at the end if it still lives."""
    command = [sys.executable, "-m", "tests.broker.serving", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, "the broker did not start"
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    anyio.run(serve, Path(sys.argv[1]))
