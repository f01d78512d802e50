"""Pipelines as users write them, for commands to run: text to put into a module."""

from __future__ import annotations

from pathlib import Path

HEAD = """
import asyncio, os, time
from flowstream import Backoff, Batch, DeadLetter, Halt, Message, Pipeline, Retry, StreamProducer

def record(messages):
    with open("handled.txt", "a") as file:
        file.writelines(f"{m.offset}\\n" for m in messages)
"""

ORDERS = """
pipeline = Pipeline(
    "{name}", StreamProducer("{stream}"), on_failure={policy}, drain_timeout={drain}
)

@pipeline.processor
async def check(message: Message[dict]) -> None:
    if message.data["n"] % 100 == 7:
        message.fail("sevens are not wanted", retry=False)

@pipeline.batcher(size=100, batch_timeout=0.1)
{handler}
"""

LOAD = """async def load(batch: Batch[dict]) -> None:
    record(batch.messages)
"""

SLOW = """async def load(batch: Batch[dict]) -> None:
    await asyncio.sleep(0.02)
    record(batch.messages)
"""

FAIL = """async def load(batch: Batch[dict]) -> None:
    open("failed", "w").close()
    raise ValueError("the warehouse is closed")
"""

HANG = """def load(batch: Batch[dict]) -> None:
    open("hanging", "w").close()
    time.sleep(3600)
"""


def write_module(
    folder: Path,
    stream: str,
    *,
    handler: str = LOAD,
    policy: str | None = None,
    drain: float = 25.0,
    name: str | None = None,
    module: str = "shop",
) -> str:
    """Write a module whose pipeline is named like its stream; returns the target."""
    text = HEAD + ORDERS.format(
        name=name or stream,
        stream=stream,
        handler=handler,
        policy=policy or f'DeadLetter("{stream}.dead")',
        drain=drain,
    )
    (folder / f"{module}.py").write_text(text)
    return module


def handled(folder: Path) -> list[int]:
    """The offsets the batch handler was given, in order."""
    file = folder / "handled.txt"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def numbered(count: int) -> bytes:
    """NDJSON: {"n": 0}, {"n": 1} ..."""
    return b"".join(b'{"n":%d}\n' % number for number in range(count))
