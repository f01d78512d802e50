"""Processes that write messages into files, and may be killed at any effect on their directory.

    python -m tests.chaos.filed DIRECTORY FORMAT SEED:KILL_AT,SEED:KILL_AT... [URL]

One process for each SEED:KILL_AT, one after the other; their exit codes are printed. Messages come
from the stream `numbers` of URL; without it they are 0 to 399, and the stored offset is a file
beside the directory. A process ends itself by SIGKILL before effect KILL_AT (-1: never) of the
kinds in EFFECTS. SEED makes the sizes of batches and the number of workers.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import anyio

from flowstream import FileSink, Message, Pipeline, StreamProducer
from tests.support.pipelines import MemoryStream, numbers

STREAM = "numbers"
COUNT = 400
EFFECTS = {"open", "os.link", "os.rename", "os.remove", "os.mkdir"}


class StoredStream(MemoryStream):
    """Numbers, with the stored offset in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(numbers(COUNT), stream=STREAM, slices=[37, 11, 64])
        self.path = path
        if path.exists():
            self.stored[STREAM] = int(path.read_text())

    async def commit(self, stream: str, offset: int) -> None:
        hidden = self.path.with_suffix(".tmp")
        hidden.write_text(str(offset))
        hidden.replace(self.path)
        await super().commit(stream, offset)


def die_at(number: int, directory: str) -> None:
    """Count the effects on the directory, as the interpreter reports them before each."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in EFFECTS and str(arguments[0]).startswith(directory):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)


def declare(directory: str, format: Any, seed: int, url: str | None) -> Pipeline:
    chance = random.Random(seed)
    source = StreamProducer(STREAM) if url else StoredStream(Path(f"{directory}.offset"))
    pipeline = Pipeline("filed", source, commit_every=chance.randint(1, 60), commit_interval=0.05)

    @pipeline.processor(concurrency=2)
    async def some(message: Message[dict]) -> None:
        if message.data["n"] % 10 == 3:
            message.drop()

    sink = FileSink(
        directory, format=format, origin=True, partition_by=lambda m: {"last": m.data["n"] % 3}
    )
    pipeline.sink(
        "files", sink, size=chance.randint(5, 90), batch_timeout=0.1,
        concurrency=chance.randint(1, 3),
    )  # fmt: skip
    return pipeline


async def run(directory: str, format: str, seed: int, kill_at: int, url: str | None) -> None:
    pipeline = declare(directory, format, seed, url)
    if kill_at >= 0:
        die_at(kill_at, directory)
    async with pipeline.start(url=url) as running:
        if url:
            await running.wait_idle(0.5)
            running.stop()
        result = await running.wait()
    if result.error is not None:
        raise result.error


def main(directory: str, format: str, runs: str, url: str | None = None) -> None:
    for each in runs.split(","):
        seed, kill_at = map(int, each.split(":"))
        process = os.fork()  # a new interpreter would import everything again
        if not process:
            anyio.run(run, directory, format, seed, kill_at, url)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
