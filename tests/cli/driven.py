"""A pipeline that a test drives from one situation into the next, and everything that tells of it.

`Shop` is the truth: what was published, what its handlers did (they write it down), what its broker
has stored. `Run` is one `flowstream run` of it, and `Run.look` asks all of its faces at once.
"""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from prometheus_client.parser import text_string_to_metric_families

from flowstream import broker
from flowstream.cli.view.live_view import frame
from flowstream.client import Environment
from tests.brokers.running import Broker
from tests.chaos.proxy import proxied
from tests.cli.command import Result, Started, flowstream

T = TypeVar("T")

SOON = 10.0
"""Seconds within which everybody says what is true."""

WINDOW = 100
BATCH = 50

MODULE = """
import asyncio, os
from flowstream import Backoff, Batch, DeadLetter, Message, Pipeline, Retry, SuperStreamProducer

pipeline = Pipeline(
    "{stream}",
    SuperStreamProducer("{stream}", single_active=True),
    retry=Retry(attempts=1_000, backoff=Backoff(0.02, maximum=0.02)),
    on_failure=DeadLetter("{stream}.dead", max_ratio=None, max_consecutive=3),
    max_in_flight={window},
    commit_interval=0.2,
    slow_after=1.0,
)

def note(what, count):
    with open("handled.txt", "a") as file:
        file.write(f"{{what}} {{count}}\\n")

@pipeline.processor()
async def check(message: Message[dict]) -> None:
    if message.data["amount"] <= 0:
        message.fail("amount must be positive", retry=False)

@pipeline.batcher("load", size={batch}, batch_timeout=0.05)
async def load(batch: Batch[dict]) -> None:
    count = len(batch.messages)
    while os.path.exists("closed"):
        open("at-the-door", "w").close()
        await asyncio.sleep(0.01)
    if os.path.exists("down"):
        note("failed", count)
        raise ConnectionError("the warehouse hung up")
    note("ok", count)
"""


class Home:
    """The broker of a shop, which can be lost and come back: one of the test's own that is stopped,
    or a real one behind a proxy that cuts everything off."""

    def __init__(self, portal: BlockingPortal, folder: Path, real: Broker | None) -> None:
        self._portal = portal
        self._folder = folder
        self._stack = ExitStack()
        self._real = real
        self._proxy: Any = None
        self._port = 0
        if real is None:
            self.back()
            self.url = self.behind = self._url
        else:
            self._proxy = self._stack.enter_context(
                portal.wrap_async_context_manager(proxied(real.host, real.port))
            )
            self.url = f"rabbitmq-stream://guest:guest@localhost:{self._proxy.port}/%2f"
            self.behind = real.url

    def lose(self) -> None:
        if self._proxy is None:
            self._stack.close()
        else:
            self._portal.call(self._cut)

    async def _cut(self) -> None:
        self._proxy.refusing = True
        self._proxy.reset_all()

    def back(self) -> None:
        if self._proxy is not None:
            self._proxy.refusing = False
            return
        running = self._stack.enter_context(
            self._portal.wrap_async_context_manager(
                broker.Broker(port=self._port, data=self._folder / "data")
            )
        )
        self._port, self._url = running.port, running.url

    def close(self) -> None:
        self._stack.close()


class Shop:
    """A pipeline of its own, named like its super stream of one partition, and what is true of it.

    `published` and `refused` count messages.
    """

    def __init__(self, portal: BlockingPortal, home: Home, name: str, folder: Path) -> None:
        self._portal = portal
        self.home = home
        self.name = name
        self.partition = f"{name}-0"
        self.dead = f"{name}.dead"
        self.folder = folder
        self.published = 0
        self.refused = 0
        self.last_stored: int | None = None
        text = MODULE.format(stream=name, window=WINDOW, batch=BATCH)
        (folder / "shop.py").write_text(text)
        self._connected(lambda it: it.create_super_stream(name, partitions=1))
        self._connected(lambda it: it.create_stream(self.dead))

    def publish(self, *amounts: int) -> None:
        bodies = [json.dumps({"amount": amount}).encode() for amount in amounts]

        async def send(environment: Environment) -> None:
            async with environment.publisher(self.partition) as publisher:
                await publisher.publish_many(bodies)

        self._connected(send)
        self.published += len(amounts)
        self.refused += sum(amount <= 0 for amount in amounts)

    def close(self) -> None:
        """From now on the last handler waits at the door."""
        (self.folder / "at-the-door").unlink(missing_ok=True)
        (self.folder / "closed").touch()

    def open(self) -> None:
        (self.folder / "closed").unlink()

    def until_at_the_door(self) -> None:
        until(lambda: holds((self.folder / "at-the-door").exists()))

    def goes_down(self) -> None:
        """From now on the last handler fails."""
        (self.folder / "down").touch()

    def is_up(self) -> None:
        (self.folder / "down").unlink()

    def handled(self) -> Counter[str]:
        """Messages by what their last handler did, every attempt counted."""
        file = self.folder / "handled.txt"
        counted: Counter[str] = Counter()
        for line in file.read_text().splitlines() if file.exists() else ():
            what, count = line.split()
            counted[what] += int(count)
        return counted

    def stored(self) -> int | None:
        """The offset that the broker has."""
        self.last_stored = self._connected(lambda it: it.query_offset(self.name, self.partition))
        return self.last_stored

    def letters(self) -> list[dict[str, Any]]:
        result = flowstream("dead-letters", "list", self.dead, "--json", url=self.home.behind)
        found: list[dict[str, Any]] = result.json
        return found

    def _connected(self, do: Callable[[Environment], Awaitable[T]]) -> T:
        async def connected() -> T:
            async with Environment(self.home.behind) as environment:
                return await do(environment)

        return self._portal.call(connected)


@contextmanager
def shop(name: str, folder: Path, real: Broker | None = None) -> Iterator[Shop]:
    """A shop on a broker of its own, or on a `real` one behind a proxy."""
    with start_blocking_portal() as portal:
        home = Home(portal, folder, real)
        try:
            yield Shop(portal, home, name, folder)
        finally:
            home.close()


@dataclass(frozen=True, slots=True)
class Faces:
    """What everybody said at one moment; `pipeline` is the one pipeline of `snapshot`."""

    snapshot: dict[str, Any]
    pipeline: dict[str, Any]
    ready: int
    checks: str
    metrics: dict[tuple[str, str], float]
    top: dict[str, Any]
    line: str
    frame: str
    log: list[dict[str, Any]]

    def metric(self, name: str, label: str = "") -> float:
        assert (name, label) in self.metrics, f"no metric {name} {label}"
        return self.metrics[name, label]


class Run:
    """One `flowstream run` of a shop; `records` is its log so far."""

    def __init__(self, shop: Shop, *options: str) -> None:
        self.shop = shop
        self.records: list[dict[str, Any]] = []
        line = ("run", "shop", "--http", "127.0.0.1:0", "--http-control")
        logs = ("--log-level", "info", "--log-format", "json")
        self._command = Started(*line, *logs, *options, url=shop.home.url, cwd=shop.folder)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        page = until(lambda: self.said("live page on"))
        self.address = str(page["message"]).split("live page on ")[1].split(",")[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._command.process.kill()
        self._reader.join()
        self._command.__exit__(kind, error, trace)

    def _read(self) -> None:
        for line in self._command.stderr:
            try:
                self.records.append(json.loads(line))
            except ValueError:
                self.records.append({"level": "raw", "message": line.decode()})

    def said(self, text: str) -> dict[str, Any]:
        """The record with the text in its message."""
        found = [record for record in self.records if text in record["message"]]
        assert found, f"no record says {text!r}: {[it['message'] for it in self.records]}"
        return found[0]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except urllib.error.URLError as error:
            last = [record["message"] for record in self.records[-10:]]
            raise AssertionError(f"the run is gone ({error}): {last}") from error

    def control(self, action: str) -> None:
        asked = {"pipeline": self.shop.name, "action": action}
        assert self.ask("api/control", asked)[0] == 200

    def look(self) -> Faces:
        """Ask everybody."""
        snapshot = json.loads(self.ask("api/snapshot")[1])
        assert snapshot["pipelines"], snapshot
        where = ("top", "--once", "--http", self.address.split("/")[2])
        (top,) = flowstream(*where, "--json").json
        ready, checks = self.ask("readyz?verbose")
        return Faces(
            snapshot,
            snapshot["pipelines"][0],
            ready,
            checks,
            metrics(self.ask("metrics")[1]),
            top["pipelines"][0],
            flowstream(*where).out,
            drawn(snapshot),
            [*self.records],
        )

    def kill(self) -> None:
        self._command.process.kill()

    def stop(self) -> None:
        self._command.signal(signal.SIGTERM)

    def end(self) -> Result:
        """Wait for its end."""
        result = self._command.end()
        self._reader.join()
        return result


def metrics(text: str) -> dict[tuple[str, str], float]:
    """The sum of each metric, and of it by each label's value: (name, value) -> sum."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label in ("", *sample.labels.values()):
                found[sample.name.removeprefix("flowstream_"), label] += sample.value
    return dict(found)


def drawn(snapshot: dict[str, Any]) -> str:
    """The live view on a terminal of 80 columns and 24 lines."""
    from rich.console import Console

    console = Console(file=StringIO(), width=80, height=24)
    with console.capture() as captured:
        console.print(frame(snapshot, 80, 23))
    return captured.get()


def holds(condition: object) -> None:
    """For `until`."""
    assert condition


def until(holds: Callable[[], T], seconds: float = 30.0) -> T:
    """Look again and again until nothing is asserted any more; the last assertion tells why not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return holds()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
