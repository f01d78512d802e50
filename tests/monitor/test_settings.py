"""The options in force are shown, and no secret with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from flowstream.connectors import DeadLetter, StreamProducer, StreamSink
from flowstream.monitor.settings import settings
from flowstream.pipeline import (
    FailurePolicy,
    Intake,
    IterableProducer,
    Message,
    OpenPolicy,
    Pipeline,
    Producer,
    RateLimit,
    Retry,
    RunContext,
    Sink,
    Write,
)

SECRET = "hunter2hunter2"


@dataclass(frozen=True)
class Webhook(FailurePolicy):
    token: str

    def open_policy(self, context: RunContext) -> AbstractAsyncContextManager[OpenPolicy]:
        raise NotImplementedError


@dataclass
class Database(Sink):
    dsn: str

    def writer(self, context: RunContext) -> AbstractAsyncContextManager[Write]:
        raise NotImplementedError


class Talkative(Producer):
    async def run(self, intake: Intake) -> None:
        """Sends nothing."""

    def describe(self) -> Mapping[str, Any]:
        return {
            "url": f"redis://me:{SECRET}@host/0",
            "api_key": SECRET,
            "password": SECRET,
            "client": Database(SECRET),
            "queue": "orders",
        }


def found(pipeline: Pipeline, *path: str) -> dict[str, Any]:
    kind, name = path
    groups = {group["kind"]: group["options"] for group in settings(pipeline)}
    return next(option for option in groups[kind] if option["name"] == name)


def test_options_of_every_stage_are_shown() -> None:
    pipeline = Pipeline(
        "orders",
        StreamProducer("orders"),
        retry=Retry(attempts=3),
        on_failure=DeadLetter("orders.dead"),
        max_in_flight=500,
    )

    @pipeline.processor(concurrency=4, partition_by=lambda message: message.data["id"])
    async def validate(message: Message[dict[str, int]]) -> None:
        """Takes all."""

    pipeline.sink("audit", StreamSink("audit"), size=50)
    assert found(pipeline, "pipeline", "max_in_flight") == {
        "name": "max_in_flight",
        "value": "500",
        "default": False,
        "about": "unsettled messages at most",
    }
    assert found(pipeline, "pipeline", "commit_interval")["default"] is True
    assert found(pipeline, "pipeline", "retry")["value"].startswith("Retry(attempts=3")
    assert found(pipeline, "pipeline", "on_failure")["value"].startswith(
        "DeadLetter(stream='orders.dead'"
    )
    assert "lambda" in found(pipeline, "processor", "partition_by")["value"]
    assert found(pipeline, "batcher", "size")["value"] == "50"
    assert found(pipeline, "producer", "stream")["value"] == "orders"


def test_no_secret_is_shown() -> None:
    pipeline = Pipeline("orders", Talkative(), on_failure=Webhook(SECRET))

    @pipeline.processor()
    async def validate(message: Message[bytes]) -> None:
        """Takes all."""

    pipeline.sink("database", Database(SECRET))
    shown = json.dumps(settings(pipeline))
    assert SECRET not in shown
    assert found(pipeline, "pipeline", "on_failure")["value"] == "Webhook"
    assert found(pipeline, "producer", "url")["value"] == "redis://me:***@host/0"
    assert found(pipeline, "producer", "queue")["value"] == "orders"


@pytest.mark.anyio
async def test_what_was_changed_while_it_runs_is_shown_changed() -> None:
    pipeline = Pipeline("orders", IterableProducer([]))

    @pipeline.processor(concurrency=2)
    async def validate(message: Message[bytes]) -> None:
        """Takes all."""

    async with pipeline.start() as running:
        running.resize("processor", 7)
        running.rate_limit = RateLimit(messages=250)
        groups = {group["kind"]: group["options"] for group in settings(pipeline, running)}
    changed = {
        option["name"]: option["value"]
        for options in groups.values()
        for option in options
        if option["about"].endswith("(changed)")
    }
    assert changed == {
        "rate_limit": "RateLimit(messages=250, interval=1.0, bytes=None)",
        "concurrency": "7",
    }
