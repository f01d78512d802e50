"""The figures agree: what handlers counted, the metrics, the live page's JSON, and the broker."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from typing import Any

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowstream.client import Environment
from flowstream.connectors import DeadLetter, StreamProducer
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, Request
from flowstream.pipeline import (
    Backoff,
    Batch,
    Drop,
    Failure,
    FailurePolicy,
    Message,
    Pipeline,
    Reason,
    Retry,
)
from flowstream.telemetry import Telemetry
from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio

COUNT = 1_000
FACE = ("ok", "dropped", "discarded", "dead_lettered")


def kind(number: int) -> str:
    """What becomes of the message with that number."""
    if number % 100 == 5:
        return "undecodable"
    return {1: "dropped", 2: "failed", 3: "retried", 4: "discarded", 6: "failed in batch",
            7: "for two batchers", 8: "dropped by one of two"}.get(number % 10, "ok")  # fmt: skip


OUTCOMES = {
    "ok": "ok",
    "retried": "ok",
    "for two batchers": "ok",
    "dropped": "dropped",
    "dropped by one of two": "dropped",
    "discarded": "discarded",
    "undecodable": "dead_lettered",
    "failed": "dead_lettered",
    "failed in batch": "dead_lettered",
}
KINDS = Counter(map(kind, range(COUNT)))
EXPECTED = Counter(OUTCOMES[kind(number)] for number in range(COUNT))


class Counting:
    """A pipeline in which everything happens, and what its handlers counted."""

    def __init__(self, stream: str) -> None:
        self.calls = 0
        self.tried: set[int] = set()
        self.loaded: Counter[int] = Counter()
        self.audited: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.pipeline = Pipeline(
            stream,
            StreamProducer(stream),
            retry=Retry(2, Backoff(initial=0.01)),
            on_failure=DeadLetter(f"{stream}.dead", max_ratio=None),
        )
        self.pipeline.processor(concurrency=3)(self.process)
        self.pipeline.on_failed(self.on_failed)
        self.pipeline.batcher(size=50, batch_timeout=0.2)(self.load)
        self.pipeline.batcher("audit", size=20, batch_timeout=0.2)(self.audit)

    async def process(self, message: Message[dict[str, int]]) -> None:
        self.calls += 1
        number = message.data["n"]
        match kind(number):
            case "dropped":
                message.drop("not ours")
            case "failed":
                message.fail("no such customer", retry=False)
            case "retried" if number not in self.tried:
                self.tried.add(number)
                raise ConnectionError("busy")
            case "discarded":
                message.fail("worth nothing", retry=False)
            case "for two batchers" | "dropped by one of two":
                message.to("default", "audit")

    async def on_failed(self, failure: Failure) -> FailurePolicy | None:
        self.failures[failure.phase] += 1
        return Drop() if failure.reason == "worth nothing" else None

    async def load(self, batch: Batch[dict[str, int]]) -> None:
        for message in batch.messages:
            number = message.data["n"]
            self.loaded[number] += 1
            if kind(number) == "failed in batch":
                message.fail("refused", retry=False)

    async def audit(self, batch: Batch[dict[str, int]]) -> None:
        for message in batch.messages:
            number = message.data["n"]
            self.audited[number] += 1
            if kind(number) == "dropped by one of two":
                message.drop("not for the audit")


class Figures:
    """Metrics and live page of a run, as somebody outside sees them."""

    def __init__(self) -> None:
        self.metrics, self.board = Metrics(), Board()
        self.telemetry = Telemetry(self.metrics, self.board)
        self.monitor = Monitor(self.metrics, self.board)

    async def read(self) -> None:
        """Scrape, and load the page's data."""
        body = await self._get("/metrics")
        self.samples = [
            sample
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        ]
        (self.page,) = json.loads(await self._get("/api/snapshot"))["pipelines"]

    async def _get(self, path: str) -> bytes:
        answer = await self.monitor.answer(Request("GET", path, {}, {}))
        assert answer.status == 200
        return answer.body

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series with these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"flowstream_{name}" and labels.items() <= dict(sample.labels).items()
        )

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Values that are not 0, by one label."""
        found: dict[str, float] = defaultdict(float)
        for sample in self.samples:
            if sample.name == f"flowstream_{name}" and labels.items() <= sample.labels.items():
                found[sample.labels[label]] += sample.value
        return {label: value for label, value in found.items() if value}


async def publish(environment: Environment, stream: str) -> None:
    bodies = [
        b"{broken" if kind(n) == "undecodable" else json.dumps({"n": n}).encode()
        for n in range(COUNT)
    ]
    await environment.create_stream(stream)
    async with environment.publisher(stream) as publisher:
        await publisher.publish_many(bodies)


async def dead_letters(environment: Environment, stream: str) -> int:
    last = await environment.last_offset(stream)
    count = 0
    async with environment.consumer(stream) as consumer:
        while last is not None:
            delivery = await anext(consumer)
            count += len(delivery.bodies)
            if delivery.offsets[-1] >= last:
                break
    return count


@pytest.fixture
def counting(stream_name: str) -> Counting:
    return Counting(stream_name)


async def test_every_outcome_is_the_same_everywhere(
    broker: Broker, stream_name: str, counting: Counting
) -> None:
    figures = Figures()
    dead = f"{stream_name}.dead"
    async with Environment(broker.url, telemetry=figures.telemetry) as environment:
        await publish(environment, stream_name)
        before = await environment.last_offset(stream_name)
        start = counting.pipeline.start(environment=environment, telemetry=figures.telemetry)
        with anyio.fail_after(60):
            async with start as running:
                figures.board.watch(stream_name, running.statistics)
                await running.wait_idle(0.5)
                running.stop()
                result = await running.wait()
        await figures.read()
        stored = await environment.query_offset(stream_name, stream_name)
        letters = await dead_letters(environment, dead)
    check_handlers(counting)
    check_outcomes(figures, result.settled, letters)
    check_failures(figures, counting)
    check_reasons(figures, result.reasons)
    check_offsets(figures, stream_name, stored, before)
    # what the broker was told
    assert figures.total("published_messages_total", stream=dead) == letters
    assert figures.by("code", "confirmed_messages_total", stream=dead) == {"1": letters}
    assert figures.total("delivered_messages_total", stream=stream_name) == COUNT


def check_handlers(counting: Counting) -> None:
    decodable = COUNT - KINDS["undecodable"]
    assert counting.calls == decodable + KINDS["retried"]
    assert len(counting.tried) == KINDS["retried"]
    loaded = {n for n in range(COUNT) if OUTCOMES[kind(n)] == "ok"}
    loaded |= {n for n in range(COUNT) if kind(n) in ("failed in batch", "dropped by one of two")}
    assert counting.loaded == dict.fromkeys(loaded, 1)
    assert (
        sum(counting.audited.values()) == KINDS["for two batchers"] + KINDS["dropped by one of two"]
    )


def check_outcomes(figures: Figures, settled: Any, letters: int) -> None:
    assert dict(settled) == EXPECTED
    assert figures.by("outcome", "settled_messages_total") == EXPECTED
    assert figures.page["outcomes"] == EXPECTED
    assert letters == EXPECTED["dead_lettered"]
    assert figures.total("received_messages_total") == figures.page["received"] == COUNT
    assert figures.page["settled"] == COUNT
    assert figures.total("in_flight_messages") == figures.page["in_flight"] == 0
    reasons = {
        "not ours": KINDS["dropped"],
        "not for the audit": KINDS["dropped by one of two"],
        "worth nothing": KINDS["discarded"],
    }
    assert figures.by("reason", "dropped_messages_total") == reasons
    intentional = figures.by("reason", "dropped_messages_total", intentional="true")
    assert intentional.keys() == {"not ours", "not for the audit"}
    page = {(row["reason"], row["intentional"]): row["messages"] for row in figures.page["dropped"]}
    expected = {(reason, reason != "worth nothing"): count for reason, count in reasons.items()}
    assert page == expected
    assert figures.total("latency_seconds_count") == COUNT


def check_failures(figures: Figures, counting: Counting) -> None:
    expected = {
        "decode": KINDS["undecodable"],
        "process": KINDS["failed"] + KINDS["discarded"],
        "batch": KINDS["failed in batch"],
    }
    assert counting.failures == expected
    assert figures.by("phase", "failed_messages_total") == expected
    assert figures.page["failed"] == sum(expected.values())
    retried = {"ConnectionError": KINDS["retried"]}
    assert figures.by("error", "retried_messages_total") == retried
    assert figures.page["retried"] == KINDS["retried"]
    handled = figures.by("stage", "handled_messages_total")
    assert handled["processor"] == counting.calls
    assert handled["default"] == sum(counting.loaded.values())
    assert handled["audit"] == sum(counting.audited.values())
    stages = {stage["name"]: stage["handled"] for stage in figures.page["stages"]}
    assert stages == handled
    batches = figures.by("batcher", "batch_messages_sum")
    assert batches == {"default": handled["default"], "audit": handled["audit"]}


def check_reasons(figures: Figures, reasons: tuple[Reason, ...]) -> None:
    """By what failed and what became of it; retried, dead-lettered, discarded, halted."""
    decode = next(reason.text for reason in reasons if reason.phase == "decode")
    undecodable, failed = KINDS["undecodable"], KINDS["failed"]
    expected = {
        ("decode", "PayloadError", decode): (0, undecodable, 0, 0),
        ("process", "", "no such customer"): (0, failed, 0, 0),
        ("process", "ConnectionError", "ConnectionError: busy"): (KINDS["retried"], 0, 0, 0),
        ("process", "", "worth nothing"): (0, 0, KINDS["discarded"], 0),
        ("batch", "", "refused"): (0, KINDS["failed in batch"], 0, 0),
    }
    fates = ("retried", "dead_lettered", "discarded", "halted")
    page = figures.page["reasons"]
    hidden = {"sample": None}  # the page is asked without the address that it is served at
    assert page == [dataclasses.asdict(reason) | hidden for reason in reasons]
    found = {
        (it["phase"], it["error"], it["text"]): tuple(it[fate] for fate in fates) for it in page
    }
    assert found == expected
    assert all(it["attempts"] == sum(it[fate] for fate in fates) for it in page)
    attempts = sum(map(sum, expected.values()))
    assert figures.page["failed_attempts"] == attempts
    assert figures.total("failed_attempts_total") == attempts
    assert figures.by("error", "failed_attempts_total") == {
        error or text: sum(counts) for (_, error, text), counts in expected.items()
    }


def check_offsets(figures: Figures, stream: str, stored: int | None, last: int | None) -> None:
    assert stored == last
    (partition,) = figures.page["streams"]
    assert partition["settled"] == partition["committed"] == stored
    for name in ("received_offset", "settled_offset", "committed_offset"):
        assert figures.total(name, stream=stream) == stored
    assert figures.total("lag_messages") == partition["lag"] == 0
    assert figures.total("uncommitted_messages") == 0
    assert figures.total("commits_total", result="failed") == 0
    assert figures.total("commits_total", result="verified") >= 1
