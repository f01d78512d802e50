"""The lag is true and the same everywhere: page, `top`, /metrics and `flowstream lag`.

Each situation is made on every broker, and the truth is what was published and not settled. The
broker's own records stand between the messages and behind them: every commit makes one.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from prometheus_client.parser import text_string_to_metric_families

from flowstream import Environment, Message, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.backoff import Backoff
from flowstream.client import Address
from flowstream.connectors import Filter
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, Request
from flowstream.pipeline import Producer, RunningPipeline, Signal
from flowstream.pipeline.running import lag as lag_of_a_run
from flowstream.telemetry import Telemetry
from tests.brokers.running import Broker
from tests.chaos.proxy import proxied
from tests.cli.command import flowstream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SOON = 10.0
"""Seconds within which everybody says the truth."""

NAME = "lagging"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag_of_a_run, "INTERVAL", 0.3)


class Handling:
    """A pipeline that settles as many messages as it is `allowed` to, one by one."""

    def __init__(self, producer: Producer, **options: Any) -> None:
        self.allowed = self.settled = 0
        self._changed = Signal()
        self.pipeline = Pipeline(
            NAME, producer, max_in_flight=50, commit_interval=0.1, **options
        )  # fmt: skip
        self.pipeline.processor(concurrency=1, max_demand=1)(self._handle)

    async def _handle(self, message: Message[bytes]) -> None:
        await self._changed.until(lambda: self.settled < self.allowed)
        self.settled += 1

    def allow(self, more: int) -> None:
        self.allowed += more
        self._changed.notify()


class Faces:
    """What those who look from outside are told of one run."""

    def __init__(self, monitor: Monitor, port: int, running: RunningPipeline) -> None:
        self.running = running
        self._monitor = monitor
        self._port = port

    async def page(self) -> dict[str, Any]:
        (pipeline,) = json.loads(await self._get("/api/snapshot"))["pipelines"]
        return dict(pipeline)

    async def scraped(self, name: str) -> dict[str, float]:
        text = (await self._get("/metrics")).decode()
        return {
            sample.labels["stream"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"flowstream_{name}"
        }

    async def top(self) -> dict[str, Any]:
        where = f"127.0.0.1:{self._port}"
        (run,) = (await command("top", "--once", "--json", "--http", where)).json
        (pipeline,) = run["pipelines"]
        return dict(pipeline)

    async def _get(self, path: str) -> bytes:
        answer = await self._monitor.answer(Request("GET", path, {}, {}))
        assert answer.status == 200
        return answer.body


async def command(*words: str, url: str | None = None, cwd: Path | None = None) -> Any:
    result = await to_thread.run_sync(lambda: flowstream(*words, url=url, cwd=cwd))
    assert result.code == 0, result.err
    return result


@asynccontextmanager
async def watched(handling: Handling, environment: Environment) -> AsyncIterator[Faces]:
    """Inside, the pipeline runs, with a monitor."""
    metrics, board = Metrics(), Board()
    monitor, telemetry = Monitor(metrics, board), Telemetry(metrics, board)
    async with anyio.create_task_group() as group:
        _, port = await group.start(monitor.run, "127.0.0.1", 0)
        start = handling.pipeline.start(environment=environment, telemetry=telemetry)
        async with start as running:
            board.watch(NAME, running.statistics)
            try:
                yield Faces(monitor, port, running)
            finally:
                running.abort()
        group.cancel_scope.cancel()


async def all_say(
    faces: Faces,
    broker: Broker,
    stream: str,
    messages: int,
    *,
    since: float | None = None,
    asked: tuple[str, ...] = (),
    cwd: Path | None = None,
) -> None:
    """Within ten seconds everybody says that so many messages are left, the first of them published
    at `since` (nothing is left without it)."""
    said: dict[str, Any] = {}

    async def look() -> dict[str, Any]:
        began = time.time()
        rows = (
            await command("lag", *(asked or (stream, NAME)), "--json", url=broker.url, cwd=cwd)
        ).json
        page, top = await faces.page(), await faces.top()
        lags, seconds = await faces.scraped("lag_messages"), await faces.scraped("lag_seconds")
        now = time.time()
        said.clear()
        said.update(
            lag=(sum(row["lag"] for row in rows), max(row["lag_seconds"] for row in rows)),
            page=(page["lag"], page["lag_seconds"]),
            top=(top["lag"], top["lag_seconds"]),
            metrics=(sum(lags.values()), max(seconds.values(), default=None)),
        )
        # A busy machine takes seconds to ask all of them.
        ages = (-0.001, 0.001) if since is None else (began - since - 2.0, now - since + 2.0)
        said["truth"] = (messages, *ages)
        assert {row["stream"] for row in rows} == {it["stream"] for it in page["streams"]}
        return said

    deadline = anyio.current_time() + SOON
    while not _agreed(await look()) and anyio.current_time() < deadline:
        await anyio.sleep(0.1)
    assert _agreed(said), (said, (await faces.page())["streams"])


def _agreed(said: dict[str, Any]) -> bool:
    messages, least, most = said["truth"]
    return all(
        count == messages and seconds is not None and least <= seconds <= most
        for face, (count, seconds, *_) in said.items()
        if face != "truth"
    )


async def publish(environment: Environment, stream: str, count: int) -> None:
    async with environment.publisher(stream) as publisher:
        await publisher.publish_many([b"message"] * count)


async def one_by_one(environment: Environment, stream: str, count: int) -> None:
    """Messages with a record of the broker's own behind each: somebody else stores offsets."""
    async with environment.publisher(stream) as publisher:
        for number in range(count):
            await publisher.publish(b"message")
            await publisher.flush()
            await environment.store_offset_verified("another", stream, number)


@pytest.mark.slow
async def test_a_backlog_with_a_full_window(broker: Broker, stream_name: str) -> None:
    handling = Handling(StreamProducer(stream_name))
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        since = time.time()
        await publish(environment, stream_name, 1500)
        async with watched(handling, environment) as faces:
            await all_say(faces, broker, stream_name, 1500, since=since)
            assert (await faces.page())["in_flight"] == 50
            await one_by_one(environment, stream_name, 10)
            await publish(environment, stream_name, 500)
            await all_say(faces, broker, stream_name, 2010, since=since)
            handling.allow(320)  # a chunk may end before
            await all_say(faces, broker, stream_name, 1690, since=since)
            (partition,) = faces.running.statistics().partitions
            assert partition.tail == await environment.last_offset(stream_name)
            assert partition.watermark == partition.committed == 319


@pytest.mark.slow
async def test_paused(broker: Broker, stream_name: str) -> None:
    handling = Handling(StreamProducer(stream_name))
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, 30)
        handling.allow(1_000)
        async with watched(handling, environment) as faces:
            await all_say(faces, broker, stream_name, 0)
            faces.running.pause()
            since = time.time()
            await one_by_one(environment, stream_name, 25)
            await all_say(faces, broker, stream_name, 25, since=since)
            assert (await faces.page())["catch_up"] is None
            await one_by_one(environment, stream_name, 5)
            await all_say(faces, broker, stream_name, 30, since=since)
            faces.running.resume()
            await all_say(faces, broker, stream_name, 0)
            assert (await faces.page())["catch_up"] == 0


async def test_idle_and_a_stream_that_ended_before_the_run(
    broker: Broker, stream_name: str
) -> None:
    handling = Handling(StreamProducer(stream_name))
    handling.allow(1_000)
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with watched(handling, environment) as faces:
            await all_say(faces, broker, stream_name, 0)  # nothing was ever published
            assert faces.running.statistics().partitions[0].tail is None
            await one_by_one(environment, stream_name, 5)
            await all_say(faces, broker, stream_name, 0)
            for number in range(6, 20):  # nothing but records
                await environment.store_offset_verified("another", stream_name, number)
            await anyio.sleep(1.0)  # several looks
            await all_say(faces, broker, stream_name, 0)
        last = await environment.last_offset(stream_name)
        async with watched(handling, environment) as faces:
            await all_say(faces, broker, stream_name, 0)
            (partition,) = faces.running.statistics().partitions
            assert (partition.received, partition.tail) == (None, last)


MODULE = f"""
from flowstream import Pipeline, Message, StreamProducer
from flowstream.connectors import Filter

pipeline = Pipeline(
    {NAME!r}, StreamProducer("STREAM", filter=Filter(("yes",), lambda body: body == b"yes"))
)

@pipeline.processor
async def handle(message: Message[bytes]) -> None: ...
"""


@pytest.mark.slow
async def test_behind_a_filter(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    if broker.version < (3, 13):
        pytest.skip("filters need RabbitMQ 3.13 or later")
    (tmp_path / "filtered.py").write_text(MODULE.replace("STREAM", stream_name))
    passing = Filter(("yes",), lambda body: body == b"yes")
    handling = Handling(StreamProducer(stream_name, filter=passing))

    async def published(*bodies: bytes) -> None:
        async with environment.publisher(stream_name, filter_value=bytes.decode) as publisher:
            await publisher.publish_many(bodies)

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        since = time.time()
        await published(*[b"yes", b"no"] * 100)
        await published(*[b"no"] * 500)
        async with watched(handling, environment) as faces:
            pipeline = {"asked": ("--pipeline", "filtered"), "cwd": tmp_path}
            await all_say(faces, broker, stream_name, 100, since=since, **pipeline)  # type: ignore[arg-type]
            handling.allow(100)
            await all_say(faces, broker, stream_name, 0, **pipeline)  # type: ignore[arg-type]
            await published(*[b"no"] * 300)
            await all_say(faces, broker, stream_name, 0, **pipeline)  # type: ignore[arg-type]
            await all_say(faces, broker, stream_name, 0)  # it is passed, and stored


async def reads(faces: Faces, partitions: int) -> None:
    """Waits until the broker has given the member so many partitions."""
    with anyio.fail_after(SOON):
        while sum(it["active"] for it in (await faces.page())["streams"]) != partitions:
            await anyio.sleep(0.1)


@pytest.mark.slow
async def test_standing_by(broker: Broker, stream_name: str) -> None:
    """Two members of a group: each tells the lag of all partitions, its own and the other's."""
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    members = [Handling(SuperStreamProducer(stream_name, single_active=True)) for _ in range(2)]
    async with Environment(broker.url) as first, Environment(broker.url) as second:
        await first.create_super_stream(stream_name, partitions=2)
        try:
            async with watched(members[0], first) as active:
                await reads(active, 2)  # it is the first member of both partitions
                async with watched(members[1], second) as other:
                    await reads(other, 1)
                    since = time.time()
                    for partition in await first.partitions(stream_name):
                        await one_by_one(first, partition, 20)
                    for faces in (active, other):
                        await all_say(faces, broker, stream_name, 40, since=since)
                    for member in members:
                        member.allow(15)
                    for faces in (active, other):
                        await all_say(faces, broker, stream_name, 10, since=since)
        finally:
            await first.delete_super_stream(stream_name)


async def test_the_broker_is_lost_and_back(broker: Broker, stream_name: str) -> None:
    handling = Handling(StreamProducer(stream_name))
    async with (
        Environment(broker.url) as direct,
        proxied(broker.host, broker.port) as proxy,
    ):
        await direct.create_stream(stream_name)
        since = time.time()
        await publish(direct, stream_name, 100)
        here = Address("localhost", proxy.port)
        url = f"rabbitmq-stream://guest:guest@localhost:{proxy.port}/%2f"
        async with (
            Environment(
                url, address_resolver=lambda _: here, backoff=Backoff(maximum=0.5)
            ) as environment,
            watched(handling, environment) as faces,
        ):
            await all_say(faces, broker, stream_name, 100, since=since)
            proxy.refusing = True
            proxy.reset_all()
            before = (await faces.page())["lag_seconds"]
            await publish(direct, stream_name, 60)
            await anyio.sleep(1.0)  # looks fail
            lost = await faces.page()
            assert lost["lag"] == 100  # what was known last
            assert lost["lag_seconds"] > before + 0.5
            proxy.refusing = False
            await all_say(faces, broker, stream_name, 160, since=since)
