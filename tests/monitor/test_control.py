"""Controls: what the page may do, and that other sites may do nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, Request, Response
from flowstream.pipeline import IterableProducer, Message, Pipeline, RateLimit, RunningPipeline
from flowstream.telemetry import Telemetry

pytestmark = pytest.mark.anyio

GOOD = {"host": "127.0.0.1:9464", "content-type": "application/json"}


@pytest.fixture
async def running() -> AsyncIterator[RunningPipeline]:
    pipeline = Pipeline("controlled", IterableProducer([b"x"]))
    ended = anyio.Event()

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await ended.wait()

    async with pipeline.start() as run:
        yield run
        ended.set()


async def ask(
    asked: Any, headers: dict[str, str] = GOOD, *, method: str = "POST", allowed: bool = True
) -> Response:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    monitor = Monitor(Metrics(), Board(), control=allowed)
    return await monitor.answer(Request(method, "/api/control", {}, headers, body))


def order(action: str, **more: Any) -> dict[str, Any]:
    return {"pipeline": "controlled", "action": action, **more}


async def test_pause_resume_and_limit(running: RunningPipeline) -> None:
    paused = []
    for action in ("pause", "resume"):
        origin = {"origin": "http://127.0.0.1:9464"}
        assert (await ask(order(action), {**GOOD, **origin})).status == 200
        paused.append(running.paused)
    assert paused == [True, False]
    assert (await ask(order("rate_limit", messages=50))).status == 200
    assert running.rate_limit == RateLimit(messages=50)
    assert (await ask(order("rate_limit", messages=None))).status == 200
    assert running.rate_limit is None


async def test_who_did_it_is_in_the_event_log() -> None:
    pipeline, board = Pipeline("controlled", IterableProducer([])), Board()
    monitor = Monitor(Metrics(), board, control=True)
    board.expect("controlled")

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Has nothing to do."""

    async with pipeline.start(telemetry=Telemetry(board)) as running:
        for action, more in (("pause", {}), ("pause", {}), ("rate_limit", {"messages": 250})):
            body = json.dumps(order(action, **more)).encode()
            request = Request("POST", "/api/control", {}, GOOD, body, peer="10.0.0.7")
            assert (await monitor.answer(request)).status == 200
        running.resume()
        running.resize("processor", 3)
        running.rate_limit = None
    log = [it["text"] for it in reversed(board.events.newest()) if " by " in it["text"]]
    assert log == [
        "paused, by the live page (10.0.0.7)",
        "limited to 250 messages every 1 s, by the live page (10.0.0.7)",
        "resumed, by the program",
        "'processor' resized from 1 to 3 workers, by the program",
        "the rate limit was removed, by the program",
        "asked to stop, by the end of its block",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example:9464"},
        {"host": "evil.example:9464", "origin": "http://evil.example:9464"},
        {"host": ""},
        {"host": "[::1"},
    ],
)
async def test_other_sites_are_refused(running: RunningPipeline, headers: dict[str, str]) -> None:
    assert (await ask(order("pause"), {**GOOD, **headers})).status == 403
    assert not running.paused


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_a_form_can_send_is_refused(running: RunningPipeline, kind: str) -> None:
    assert (await ask(order("pause"), {**GOOD, "content-type": kind})).status == 415
    assert not running.paused


@pytest.mark.parametrize("host", ["localhost:9464", "[::1]:9464", "192.168.0.7:9464", "10.0.0.1"])
async def test_addresses_and_localhost_are_accepted(running: RunningPipeline, host: str) -> None:
    assert (await ask(order("pause"), {**GOOD, "host": host})).status == 200


async def test_it_is_off_unless_allowed(running: RunningPipeline) -> None:
    answer = await ask(order("pause"), allowed=False)
    assert (answer.status, b"--http-control" in answer.body) == (403, True)
    assert (await ask(order("pause"), method="GET")).status == 405
    assert not running.paused


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (b"{", 400, "must be a JSON object"),
        (b"\xff", 400, "must be a JSON object"),
        ([], 400, "must be a JSON object"),
        (order("pause") | {"pipeline": "other"}, 404, "no pipeline 'other' is running"),
        ({"action": "pause"}, 404, "no pipeline None is running"),
        ({"pipeline": "controlled"}, 400, "expected pause, resume or rate_limit"),
        (order("stop"), 400, "action='stop': expected pause, resume or rate_limit"),
        (order("drain"), 400, "to drain the run, send it SIGTERM"),
        (order("resize"), 400, "start the run again with other --workers"),
        (order("rate_limit", messages=-1), 400, "messages=-1: a limit is a number"),
        (order("rate_limit", messages="fast"), 400, "messages='fast': expected a number"),
        (order("rate_limit", messages=True), 400, "messages=True: expected a number"),
        (order("rate_limit", messages=float("nan")), 400, "messages=nan: expected a number"),
        (order("rate_limit", messages=1e300), 400, "messages=1e+300: expected a number"),
        (order("rate_limit", messages=False), 400, "messages=False: expected a number"),
    ],
)
async def test_bad_requests(running: RunningPipeline, asked: Any, status: int, said: str) -> None:
    answer = await ask(asked)
    assert answer.status == status
    assert said in answer.body.decode()
    assert running.rate_limit is None


@pytest.mark.parametrize("messages", [0, -5, 0.0, -0.5])
async def test_a_limit_is_more_than_nothing(running: RunningPipeline, messages: float) -> None:
    answer = await ask(order("rate_limit", messages=messages))
    assert answer.status == 400
    assert answer.body.decode() == (
        f"messages={messages}: a limit is a number of messages per second above 0; null removes "
        "the limit, and the action pause stops the intake\n"
    )
    assert running.rate_limit is None
