"""A real Prometheus scrapes a real run with failures, retries, a rebalance and a reconnect in it;
the query of every panel and the value of every alert, as the files have them, return data there."""

from __future__ import annotations

import math
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import pytest

from flowstream.client import Environment
from grafana.generate import ALERTS
from tests.brokers.running import Broker
from tests.chaos.orders import place_of_its_own, wait_for
from tests.cli.command import Started
from tests.conftest import RUNNING, nodes_of
from tests.grafana.eventful import STREAMS, STUCK, SUPER_STREAM, body
from tests.grafana.prometheus import Prometheus, program, promtool
from tests.grafana.queries import ROOT, panel_queries, rules, substituted

PARTITIONS = 3
SLICE = 20
PAUSE = 0.05
"""Seconds between slices: 400 messages a second at most."""
WINDOW = "10s"
"""$__rate_interval for a scrape every second, as Grafana makes it at least four times that."""

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def newest() -> Broker:
    """The newest single broker that is up: super streams need 3.13."""
    names = [name for name in RUNNING if name not in {"cluster", "3.10"}]
    return nodes_of(max(names, default="4.0", key=lambda name: [*map(int, name.split("."))]))[0]


@contextmanager
def feed(url: str) -> Iterator[Callable[[], int]]:
    """Publishes into the super stream until the end of `with`; gives how many there are so far."""
    ended = threading.Event()
    sent = 0

    async def publish() -> None:
        nonlocal sent
        async with (
            Environment(url) as environment,
            environment.super_stream_publisher(SUPER_STREAM) as publisher,
        ):
            while not ended.is_set():
                numbers = range(sent, sent + SLICE)
                keys = [str(n) for n in numbers]
                await publisher.send_many([body(n) for n in numbers], keys=keys)
                sent += SLICE
                await anyio.sleep(PAUSE)
            await publisher.flush()

    thread = threading.Thread(target=anyio.run, args=(publish,))
    thread.start()
    try:
        yield lambda: sent
    finally:
        ended.set()
        thread.join()


class Process:
    """A `flowstream run` of the eventful pipeline, and where its metrics are."""

    def __init__(self, started: Started) -> None:
        self._started = started
        found = re.search(r"http://(\S+)/metrics", started.line("live page on"))
        assert found is not None
        self.target = found[1]

    def metrics(self) -> bytes:
        with urllib.request.urlopen(f"http://{self.target}/metrics", timeout=10) as answer:
            text: bytes = answer.read()
        return text

    def total(self, name: str, **labels: str) -> float:
        """A metric, summed over its series that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", self.metrics().decode(), re.MULTILINE)
        return sum(float(value) for inside, value in lines if all(w in inside for w in wanted))

    def end(self) -> None:
        self._started.signal(signal.SIGTERM)
        result = self._started.end()
        assert result.code == 0, result.err


class Scene:
    """The run, and what Prometheus saw of it between `start` and `end`."""

    def __init__(self, prometheus: Prometheus, start: float, end: float) -> None:
        self.prometheus = prometheus
        self.start = start
        self.end = end

    def has_data(self, expression: str) -> bool:
        """Whether the expression gave a number at any second of the run."""
        series = self.prometheus.query_range(expression, self.start, self.end)
        return any(math.isfinite(float(value)) for each in series for _, value in each["values"])

    def peak(self, expression: str) -> float:
        """The highest value of the expression in the run; 0 where there was none."""
        series = self.prometheus.query_range(expression, self.start, self.end)
        values = [float(value) for each in series for _, value in each["values"]]
        return max((value for value in values if math.isfinite(value)), default=0.0)


@pytest.fixture(scope="module")
def scene(newest: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    program("prometheus")
    with ExitStack() as stack:
        url = stack.enter_context(place_of_its_own(newest))
        prometheus = stack.enter_context(Prometheus(tmp_path_factory.mktemp("prometheus")))
        anyio.run(prepare, url)
        start = time.time()
        sent = stack.enter_context(feed(url))
        play(stack, newest, url, prometheus, sent)
        yield Scene(prometheus, start, time.time())


async def prepare(url: str) -> None:
    async with Environment(url) as environment:
        await environment.create_super_stream(SUPER_STREAM, partitions=PARTITIONS)
        for stream in STREAMS:
            await environment.create_stream(stream)


def play(
    stack: ExitStack, broker: Broker, url: str, prometheus: Prometheus, sent: Callable[[], int]
) -> None:
    """One process with all partitions, a second that takes some, all connections closed, and the
    second one's drain."""

    def start() -> Process:
        line = ("run", "tests.grafana.eventful", "--http", "127.0.0.1:0")
        process = Process(stack.enter_context(Started(*line, url=url, cwd=ROOT)))
        prometheus.scrape(process.target)
        return process

    first = start()
    wait_for(lambda: held(first) == PARTITIONS, every=0.2)
    wait_for(lambda: sent() > STUCK and first.total("flowstream_stuck_handlers_total"), every=0.2)
    second = start()
    wait_for(lambda: held(second) and held(first) + held(second) == PARTITIONS, every=0.2)
    processes = (first, second)
    wait_for(lambda: settled(second, "dead_lettered"), every=0.2)
    wait_for(lambda: b"\nflowstream_retention_headroom_messages{" in first.metrics(), every=0.2)
    promtool("check", "metrics", stdin=second.metrics())
    close_connections(broker, url)
    for process in processes:
        wait_for(lambda each=process: each.total("flowstream_recoveries_total"), every=0.2)  # type: ignore[misc]
    before = [settled(process, "ok") for process in processes]
    wait_for(
        lambda: all(settled(p, "ok") > count for p, count in zip(processes, before, strict=True)),
        every=0.2,
    )
    second.end()
    wait_for(lambda: held(first) == PARTITIONS, every=0.2)
    time.sleep(3)  # for the last scrapes


def held(process: Process) -> int:
    return int(process.total("flowstream_active_partitions"))


def settled(process: Process, outcome: str) -> float:
    return process.total("flowstream_settled_messages_total", outcome=outcome)


def close_connections(broker: Broker, url: str) -> None:
    """By the management, once it has heard of those of the processes and of the feed."""
    vhost = urlsplit(url).path.removeprefix("/")

    def connections() -> list[Any]:
        found: list[Any] = broker.api("GET", f"vhosts/{vhost}/connections")
        return found if len(found) >= 9 else []

    for connection in wait_for(connections, every=0.5):
        broker.api("DELETE", f"connections/{quote(connection['name'], safe='')}")


def test_what_happened_is_what_should_have(scene: Scene) -> None:
    """Otherwise panels would be empty for the wrong reason, or full for it."""
    for expression in (
        'sum(flowstream_failed_messages_total{phase="decode"})',
        'sum(flowstream_failed_messages_total{phase="process",error="it has no price"})',
        'sum(flowstream_retried_messages_total{error="TimeoutError"})',
        'sum(flowstream_settled_messages_total{outcome="dead_lettered"})',
        'sum(flowstream_dropped_messages_total{reason="a test order",intentional="true"})',
        "sum(flowstream_stuck_handlers_total)",
        'sum(flowstream_partition_moves_total{direction="lost"})',
        'sum(flowstream_recoveries_total{kind="consumer"})',
        "sum(flowstream_connections_lost_total)",
    ):
        assert scene.peak(expression) > 0, expression


@pytest.mark.parametrize("query", list(panel_queries()), ids=str)
def test_the_panel_has_data(scene: Scene, query: Any) -> None:
    expression = substituted(query.expression, WINDOW)
    assert scene.has_data(expression), expression


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_alert_has_data(scene: Scene, alert: Any) -> None:
    """Its value, which is the first part of its rule; all of it is data only while it fires."""
    expression = rules("alert")[alert.name]["expr"]
    assert expression.startswith(f"{alert.value} {alert.bound}")
    assert scene.has_data(alert.value), alert.value
    scene.prometheus.query(expression)


@pytest.mark.parametrize("name", rules("record"))
def test_the_recording_has_data(scene: Scene, name: str) -> None:
    assert scene.has_data(name)
