"""What the files of deploy/ start, really started: probes are asked, and a stop drains in time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from flowstream import Environment
from flowstream.testing import broker_in_thread
from tests.cli.command import Started, flowstream, wait_until
from tests.deploy.files import (
    DEPLOY,
    ROOT,
    UNITS,
    compose,
    container,
    exec_start,
    pod,
    seconds,
    service,
    variables,
)
from tests.grafana.prometheus import free_port
from tests.support.reading import contents

COUNT = 20_000
PARTITIONS = 12
"""What the compose file creates."""

pytestmark = pytest.mark.slow


@pytest.fixture
def url() -> Iterator[str]:
    """A broker with the partitions that the compose file creates, and messages in them."""
    with broker_in_thread() as broker:
        for _ in range(2):  # the compose file does it at each start
            created = flowstream(*compose()["services"]["partitions"]["command"], url=broker.url)
            assert created.code == 0, created.err
        anyio.run(publish, broker.url)
        yield broker.url


async def publish(url: str) -> None:
    order = '{{"order_id": {0}, "customer_id": {1}, "quantity": 2, "amount": "3.50"}}'
    bodies = [order.format(n, n % 97).encode() for n in range(COUNT)]
    async with (
        Environment(url) as environment,
        environment.super_stream_publisher("sales") as publisher,
    ):
        await publisher.publish_many(bodies, keys=[str(n % 97) for n in range(COUNT)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the pipelines in it, and nothing else."""
    shutil.copytree(
        ROOT / "pipelines", tmp_path / "work" / "pipelines",
        ignore=shutil.ignore_patterns("__pycache__", "data"),
    )  # fmt: skip
    return tmp_path / "work"


class Run:
    """`flowstream run` with the words of a file, but for the address that it listens at."""

    def __init__(self, words: list[str], folder: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        words = [
            f"--http=127.0.0.1:{self.port}" if word.startswith("--http=") else word
            for word in words
        ]
        quiet = {**env, "PYTHONDONTWRITEBYTECODE": "1"}
        self.started = Started(*words, "--create", cwd=folder, env=quiet)

    def answers(self, path: str) -> bool:
        """Whether a probe of the path succeeds."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False
        return True

    def _sum(self, metric: str) -> float:
        """The sum of a metric over its series; 0 before there is one."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                text = page.read().decode()
        except OSError:
            return 0.0
        found = re.findall(rf"^flowstream_{metric}\{{.*\}} (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def settled(self) -> float:
        return self._sum("settled_messages_total")

    def partitions(self) -> float:
        """How many it reads."""
        return self._sum("active_partitions")

    def lag(self) -> float:
        return self._sum("lag_messages")

    def stop(self) -> float:
        """Send SIGTERM; the seconds until it has ended, well."""
        began = time.monotonic()
        self.started.signal(signal.SIGTERM)
        result = self.started.end()
        assert result.code == 0, result.err
        return time.monotonic() - began


def figures(url: str) -> tuple[int, int]:
    """How many messages are settled, by the stored offsets, and how many the sink has."""

    async def count() -> tuple[int, int]:
        settled = 0
        async with Environment(url) as environment:
            for partition in await environment.partitions("sales"):
                stored = await environment.query_offset("sales", partition)
                offsets = [each[0] for each in await contents(environment, partition)]
                settled += sum(offset <= (-1 if stored is None else stored) for offset in offsets)
            return settled, len(await contents(environment, "sales.priced"))

    return anyio.run(count)


@pytest.mark.parametrize("name", UNITS)
def test_a_service_drains_within_its_time_and_writes_nothing(
    name: str, folder: Path, url: str
) -> None:
    """It is stopped in the middle of the work: what it stored is what it published, exactly."""
    _, *words = exec_start(name)
    env = {**variables(DEPLOY / "systemd" / "flowstream.env"), "FLOWSTREAM_URL": url}
    run = Run(words, folder, env)
    with run.started:
        wait_until(lambda: run.settled() > 0)
        assert run.stop() < seconds(service(name)["TimeoutStopSec"])
    settled, published = figures(url)
    assert settled == published > 0
    assert os.listdir(folder) == ["pipelines"]  # the file system is read-only for it


def test_a_pod_answers_its_probes_and_drains_within_its_grace(folder: Path, url: str) -> None:
    run = Run(container()["args"], folder, {"FLOWSTREAM_URL": url})
    probes = [
        container()[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")
    ]
    with run.started:
        for path in [*(probe["path"] for probe in probes), "/metrics"]:
            wait_until(partial(run.answers, path))
        assert run.stop() < pod()["terminationGracePeriodSeconds"]
    assert os.listdir(folder) == ["pipelines"]


def test_workers_share_the_partitions_and_one_that_leaves_hands_its_own_over(
    folder: Path, url: str
) -> None:
    """Scaled to two and down to one, with the words of the compose file.

    The second one starts when the first has all partitions: two that start together may share them
    unevenly (docs/scale.md).
    """
    words = [word for word in compose()["services"]["worker"]["command"] if word != "--create"]
    first = Run(words, folder, {"FLOWSTREAM_URL": url})
    with first.started:
        wait_until(lambda: first.partitions() == PARTITIONS)
        second = Run(words, folder, {"FLOWSTREAM_URL": url})
        with second.started:
            wait_until(lambda: first.partitions() == second.partitions() == PARTITIONS / 2)
            second.stop()
        wait_until(lambda: first.partitions() == PARTITIONS and not first.lag())
        first.stop()
    assert figures(url) == (COUNT, COUNT)
