"""Readiness of real runs: false within its stated time for each reason, and true again after it.

Liveness is asked at the same moments, and does not flap.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal

from flowstream.broker import Broker
from flowstream.cli.readers.position import position_of
from flowstream.client import Environment
from flowstream.client.consuming import retention
from flowstream.connectors import DeadLetter, StreamProducer
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, Request, health
from flowstream.pipeline import Batch, Message, Pipeline
from flowstream.pipeline.running import lag
from flowstream.protocol import OffsetSpec
from flowstream.telemetry import Telemetry
from flowstream.testing import virtual_time
from tests.support.pipelines import MemoryStream

pytestmark = pytest.mark.anyio

virtual = pytest.mark.parametrize("anyio_backend", [virtual_time()], ids=["virtual"])


def bodies(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@asynccontextmanager
async def served(port: int, data: Path) -> AsyncIterator[Broker]:
    """A broker in a thread of its own, that ends when the block does."""
    with ExitStack() as stack:
        portal = await to_thread.run_sync(stack.enter_context, start_blocking_portal())
        broker = portal.wrap_async_context_manager(Broker(port=port, data=data))
        yield await to_thread.run_sync(stack.enter_context, broker)
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(stack.close)


class Probe:
    """What an orchestrator sees."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.board = Board(clock)
        self.telemetry = Telemetry(self.board)
        self._monitor = Monitor(Metrics(), self.board)

    async def failing(self) -> set[str]:
        """The checks that fail now; the run has to be alive."""
        assert (await self._get("/livez")).status == 200
        answer = await self._get("/readyz")
        lines = answer.body.decode().splitlines()
        failing = {line.split("/")[1].split(":")[0] for line in lines if line.startswith("[-]")}
        assert (answer.status == 503) == bool(failing)
        return failing

    async def _get(self, path: str):
        return await self._monitor.answer(Request("GET", path, {}, {}))

    async def turns(self, names: set[str], *, within: float, step: float = 1.0) -> float:
        """Wait until exactly these checks fail; returns the seconds it took."""
        start = anyio.current_time()
        while (found := await self.failing()) != names:
            elapsed = anyio.current_time() - start
            assert elapsed <= within, f"{found} after {elapsed:.0f} s, not {names}"
            await anyio.sleep(step)
        return anyio.current_time() - start


@virtual
async def test_a_stuck_handler() -> None:
    stuck, going_on = anyio.Event(), anyio.Event()
    pipeline = Pipeline("test", MemoryStream(bodies(50), endless=True), stuck_after=30.0)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        if message.data == b"20":
            stuck.set()
            await going_on.wait()

    probe = Probe(anyio.current_time)
    async with pipeline.start(telemetry=probe.telemetry) as running:
        probe.board.watch("test", running.statistics)
        await stuck.wait()
        assert await probe.turns({"handlers", "progress"}, within=32) >= 29
        going_on.set()
        await probe.turns(set(), within=1)


@virtual
async def test_a_slow_batch_is_no_stuck_one() -> None:
    pipeline = Pipeline("test", MemoryStream(bodies(5), endless=True), stuck_after=30.0)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    @pipeline.batcher(size=100, batch_timeout=300)
    async def load(batch: Batch[bytes]) -> None:
        """Takes batches."""

    probe = Probe(anyio.current_time)
    async with pipeline.start(telemetry=probe.telemetry) as running:
        probe.board.watch("test", running.statistics)
        for _ in range(320):
            assert await probe.failing() == set()
            await anyio.sleep(1)
        assert running.statistics().settled == {"ok": 5}


class Forgetful(MemoryStream):
    """Cannot store offsets while `failing`."""

    failing = False

    async def commit(self, stream: str, offset: int) -> None:
        if self.failing:
            raise ConnectionError("the broker does not answer")
        await super().commit(stream, offset)


@pytest.mark.slow
@virtual
async def test_no_commits_while_messages_arrive() -> None:
    producer = Forgetful(bodies(100_000), slices=[10])
    pipeline = Pipeline("test", producer, commit_interval=5.0, commit_every=1_000)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep(0.01)

    probe = Probe(anyio.current_time)
    async with pipeline.start(telemetry=probe.telemetry) as running:
        probe.board.watch("test", running.statistics)
        await anyio.sleep(60)
        assert await probe.failing() == set()
        producer.failing = True
        limit = health.COMMITS_MISSED * 5.0
        assert await probe.turns({"commits"}, within=limit + 6) >= limit - 6
        reasons = probe.board.snapshot()["pipelines"][0]["reasons"]
        assert [(it["phase"], it["error"]) for it in reasons] == [("commit", "ConnectionError")]
        producer.failing = False
        await probe.turns(set(), within=6)
        running.abort()


async def test_the_broker_is_gone_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "RECOVERY_GRACE", 0.2)
    probe, pipeline = Probe(), Pipeline("test", StreamProducer("s"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    async with AsyncExitStack() as stack:
        async with served(0, tmp_path) as broker:
            port = broker.port
            environment = await stack.enter_async_context(
                Environment(broker.url, telemetry=probe.telemetry)
            )
            await environment.create_stream("s")
            probe.board.expect("test")
            assert "phase" in await probe.failing()
            running = await stack.enter_async_context(
                pipeline.start(environment=environment, telemetry=probe.telemetry)
            )
            probe.board.watch("test", running.statistics)
            async with environment.publisher("s") as publisher:
                await publisher.publish(b"x")
            await running.wait_idle(0.05)
            assert await probe.failing() == set()
        with anyio.fail_after(health.RECOVERY_GRACE):  # at once
            while not (losses := probe.board.snapshot()["losses"]):
                await anyio.sleep(0.02)
        (loss,) = losses
        assert re.match(r"the consumer of 's' has been disconnected for [012] s:", loss["text"])
        assert {each["kind"] for each in probe.board.snapshot()["away"]} == {
            "environment",
            "consumer",
        }
        await probe.turns({"broker"}, within=20, step=0.02)
        with anyio.fail_after(10):  # what is in the way now, and no longer why it was lost
            while "connection refused" not in probe.board.snapshot()["losses"][0]["text"]:
                await anyio.sleep(0.02)
        async with served(port, tmp_path):
            await probe.turns(set(), within=30, step=0.02)
            assert probe.board.snapshot()["losses"] == []
            await stack.aclose()


async def test_the_stream_of_dead_letters_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the message nor the handler is at fault, and everything that is shown says so."""
    monkeypatch.setattr(health, "RECOVERY_GRACE", 0.2)
    probe, pipeline = Probe(), Pipeline("test", StreamProducer("s"), on_failure=DeadLetter("dead"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        message.fail("no such customer")

    async with (
        Broker(port=0, data=tmp_path) as broker,
        Environment(broker.url, telemetry=probe.telemetry, missing_timeout=2.0) as environment,
    ):
        await environment.create_stream("s")
        start = pipeline.start(environment=environment, telemetry=probe.telemetry)
        async with start as running, environment.publisher("s") as publisher:
            probe.board.watch("test", running.statistics)
            await publisher.publish(b"1")
            while not running.statistics().settled.get("dead_lettered"):
                await anyio.sleep(0.02)
            await environment.delete_stream("dead")
            await probe.turns({"broker"}, within=20, step=0.02)
            (loss,) = probe.board.snapshot()["losses"]
            assert loss["text"].startswith("the publisher of 'dead' has been disconnected for")
            assert "the stream does not exist" in loss["text"]
            await publisher.publish(b"2")
            halted = str((await running.wait()).error)
    assert "no such customer (and DeadLetter: message 2 for" in halted
    assert "the stream does not exist" in halted
    assert "fix the cause and run it, or discard this message" in halted


async def test_a_lifespan_that_hangs_is_no_matter_of_the_broker(tmp_path: Path) -> None:
    probe, begun = Probe(), anyio.Event()

    @asynccontextmanager
    async def hanging() -> AsyncIterator[None]:
        begun.set()  # the producer is open
        await anyio.sleep_forever()
        yield

    pipeline = Pipeline("test", StreamProducer("s"), lifespan=hanging)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    async with (
        Broker(port=0, data=tmp_path) as broker,
        Environment(broker.url, telemetry=probe.telemetry) as environment,
        anyio.create_task_group() as group,
    ):
        await environment.create_stream("s")
        probe.board.expect("test")
        opened = partial(pipeline.run, environment=environment, telemetry=probe.telemetry)
        group.start_soon(opened)
        await begun.wait()
        assert await probe.failing() == {"phase"}
        assert probe.board.snapshot()["away"] == []
        group.cancel_scope.cancel()


async def test_a_stored_offset_beyond_the_stream(tmp_path: Path) -> None:
    probe, pipeline = Probe(), Pipeline("test", StreamProducer("s"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    async with (
        Broker(port=0, data=tmp_path) as broker,
        Environment(broker.url, telemetry=probe.telemetry) as environment,
    ):
        await environment.create_stream("s")
        await environment.store_offset_verified("test", "s", 50)
        start = pipeline.start(environment=environment, telemetry=probe.telemetry)
        async with start as running, environment.publisher("s") as publisher:
            probe.board.watch("test", running.statistics)
            await publisher.publish_many(bodies(10))
            await probe.turns({"offset"}, within=20, step=0.1)
            (shown,) = probe.board.snapshot()["pipelines"]
            assert shown["condition"]["name"] == "not ready"
            assert "no message before 51 is handled" in shown["condition"]["why"]
            assert "--to first" in shown["condition"]["advice"]
            await publisher.publish_many(bodies(50))
            await probe.turns(set(), within=20, step=0.1)
            assert running.statistics().received > 0


async def test_retention_overtakes_a_paused_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has lost messages already, and what is lost is not waiting."""
    monkeypatch.setattr(lag, "INTERVAL", 0.1)
    monkeypatch.setattr(retention, "LOOK_INTERVAL", 0.1)
    probe, pipeline = Probe(), Pipeline("test", StreamProducer("s", credit=2))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    def page() -> dict[str, Any]:
        (shown,) = probe.board.snapshot()["pipelines"]
        return shown

    async with (
        Broker(port=0, data=tmp_path) as broker,
        Environment(broker.url, telemetry=probe.telemetry) as environment,
    ):
        await environment.create_stream("s", max_length_bytes=20_000, max_segment_size_bytes=4_000)
        start = pipeline.start(environment=environment, telemetry=probe.telemetry)
        async with start as running, environment.publisher("s") as publisher:
            probe.board.watch("test", running.statistics)
            await publisher.publish(b"first")
            while page()["settled"] < 1:
                await anyio.sleep(0.02)
            running.pause()
            for sent in range(1, 11):
                await publisher.publish_many([b"x" * 500] * 40)
                with anyio.fail_after(10):  # all of it is seen, before retention removes it
                    while page()["streams"][0]["tail"] < 40 * sent:
                        await anyio.sleep(0.02)
            there = await position_of(environment, "test", "s")
            assert there.lag < 100
            assert there.lost > 300
            with anyio.fail_after(10):
                while page()["lag"] != there.lag:
                    await anyio.sleep(0.02)
                while not any("overtaken" in it["text"] for it in probe.board.events.newest()):
                    await anyio.sleep(0.02)
            running.abort()


async def test_truncated(tmp_path: Path) -> None:
    later = 0.0
    probe = Probe(lambda: time.time() + later)
    pipeline = Pipeline("test", StreamProducer("s", on_truncated="skip"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    async with (
        Broker(port=0, data=tmp_path) as broker,
        Environment(broker.url, telemetry=probe.telemetry) as environment,
    ):
        await environment.create_stream("s", max_length_bytes=20_000, max_segment_size_bytes=4_000)
        async with environment.publisher("s") as publisher:
            for _ in range(200):
                await publisher.publish_many([b"x" * 500] * 2)
            await publisher.publish(b"the first of a segment, in which the offset is stored")
        async with environment.consumer("s", offset=OffsetSpec.first()) as consumer:
            first = (await anext(consumer)).offset
        assert first > 1
        await environment.store_offset_verified("test", "s", 0)
        probe.board.expect("test")
        start = pipeline.start(environment=environment, telemetry=probe.telemetry)
        async with start as running:
            probe.board.watch("test", running.statistics)
            assert "retention" in await probe.failing()
            assert probe.board.snapshot()["pipelines"][0]["truncated"] == first - 1
            later = health.TRUNCATION_SHOWN + 1
            await probe.turns(set(), within=20, step=0.02)
