"""A KeyboardInterrupt goes through, alone or in a group, from every callback on both backends."""

from __future__ import annotations

import dataclasses
import gc
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import pytest

from flowstream.pipeline import (
    Acknowledger,
    Batch,
    FailurePolicy,
    Intake,
    Message,
    OpenPolicy,
    Pipeline,
    Producer,
    Retry,
    Sink,
)
from flowstream.telemetry import Telemetry
from tests.support.pipelines import MemoryStream, numbers

PLACES = [
    "processor", "thread", "prepare", "partition_by", "batcher", "batcher thread", "batcher key",
    "size", "sink", "on_failed", "policy", "acknowledger", "lifespan", "lifespan end", "open",
    "run", "iterable", "commit", "verify", "close", "decode", "observer", "reads",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """The main tasks that interrupts leave on asyncio are logged, with tracebacks, when they are
    collected. In a test of another file that could be while source code is parsed, where CPython
    3.11 bears no traceback (SystemError: AST constructor recursion depth mismatch)."""
    yield
    gc.collect()


def alone() -> BaseException:
    return KeyboardInterrupt()


def in_a_group() -> BaseException:
    inner = BaseExceptionGroup("inner", [OSError("x"), KeyboardInterrupt()])
    return BaseExceptionGroup("outer", [ValueError("x"), inner])


class Interrupting(Producer, Acknowledger):
    """A pipeline whose callback at one place raises an interrupt; everything else works."""

    def __init__(self, where: str, error: BaseException) -> None:
        self.where = where
        self.error = error
        self.declared = False

    def here(self, where: str) -> None:
        if where == self.where:
            raise self.error

    def reads(self) -> None:
        if self.declared:
            self.here("reads")

    async def open(self, context: Any) -> None:
        self.here("open")

    async def run(self, intake: Intake) -> None:
        kept = {"acknowledger": self, "commits": False} if self.where == "acknowledger" else {}
        await intake.open("numbers", **kept).send(numbers(20))  # type: ignore[arg-type]
        self.here("run")

    async def commit(self, stream: str, offset: int) -> None:
        self.here("commit")

    async def verify(self, stream: str, offset: int) -> None:
        self.here("verify")

    async def close(self) -> None:
        self.here("close")

    async def acknowledge(self, messages: Any, outcome: str) -> None:
        self.here("acknowledger")

    def observe(self, event: Any) -> None:
        self.here("observer")


@dataclass
class Number:
    """Payloads are decoded to it."""

    n: int
    source: ClassVar[Interrupting | None] = None

    def __post_init__(self) -> None:
        if self.source is not None:
            self.source.here("decode")


class Policy(FailurePolicy, OpenPolicy):
    def __init__(self, source: Interrupting) -> None:
        self.source = source

    @asynccontextmanager
    async def open_policy(self, context: Any) -> AsyncIterator[OpenPolicy]:
        yield self

    async def handle(self, failures: Any) -> str:
        self.source.here("policy")
        return "discarded"


class Writing(Sink):
    def __init__(self, source: Interrupting) -> None:
        self.source = source

    @asynccontextmanager
    async def writer(self, context: Any) -> AsyncIterator[Any]:
        async def write(batch: Batch[Any]) -> None:
            self.source.here("sink")

        yield write


def pipeline_over(source: Interrupting) -> Pipeline:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        source.here("lifespan")
        yield
        source.here("lifespan end")

    def key(message: Message[Any]) -> int:
        source.here("partition_by")
        return message.offset

    def batch_key(message: Message[Any]) -> int:
        source.here("batcher key")
        return message.offset

    def size(message: Message[Any], count: int) -> tuple[bool, int]:
        source.here("size")
        return count == 3, count + 1

    pipeline = Pipeline(
        "test", source, lifespan=lifespan, on_failure=Policy(source), partition_by=key,
        retry=Retry(1),
    )  # fmt: skip

    async def handle(message: Message[Number]) -> None:
        source.here("processor")
        if message.offset == 7:
            raise ValueError("x")
        message.to(("default", "size", "sink")[message.offset % 3])

    def in_a_thread(message: Message[Number]) -> None:
        source.here("thread")
        message.to("default")

    async def store(batch: Batch[dict]) -> None:
        source.here("batcher")

    def store_in_a_thread(batch: Batch[dict]) -> None:
        source.here("batcher thread")

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        source.here("prepare")

    @pipeline.on_failed
    async def failed(failure: Any) -> None:
        source.here("on_failed")

    pipeline.processor(in_a_thread if source.where == "thread" else handle)
    threads = source.where == "batcher thread"
    pipeline.batcher("default", size=3, partition_by=batch_key)(
        store_in_a_thread if threads else store
    )
    pipeline.batcher("size", size=(0, size))(store)
    pipeline.sink("sink", Writing(source), size=3)
    if source.where == "iterable":
        from flowstream.pipeline import IterableProducer

        def items() -> Any:
            yield from range(5)
            source.here("iterable")

        pipeline.declaration = dataclasses.replace(
            pipeline.declaration, producer=IterableProducer(items())
        )
    return pipeline


@pytest.mark.parametrize("make", [alone, in_a_group])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_goes_through(
    backend: str, where: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Interrupting(where, make())
    pipeline = pipeline_over(source)
    source.declared = True
    monkeypatch.setattr(Number, "source", source)
    telemetry = Telemetry(*([source] if where == "observer" else []))

    async def main() -> None:
        with anyio.fail_after(20):
            await pipeline.run(telemetry=telemetry)

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)
    assert pipeline.running is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_ends_the_run_and_what_is_settled_is_committed(backend: str) -> None:
    source = MemoryStream(numbers(30), slices=[10], endless=True)
    pipeline = Pipeline("test", source, commit_every=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if message.offset == 25:
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        anyio.run(pipeline.run, backend=backend)
    assert source.stored["orders"] >= 9
    assert source.closed == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_one_the_same_pipeline_is_well(backend: str) -> None:
    result = anyio.run(pipeline_over(Interrupting("", OSError())).run, backend=backend)
    assert result.settled == {"ok": 19, "discarded": 1}
