"""Each path answers, over a real socket."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import anyio
import pytest
from anyio import to_thread

from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor
from flowstream.monitor.health import STUCK_AFTER
from flowstream.telemetry import PhaseChanged, Received, Settled, Telemetry

pytestmark = pytest.mark.anyio


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Face:
    """A monitor on a free port, and the telemetry that feeds it."""

    def __init__(self, port: int, clock: Clock, telemetry: Telemetry) -> None:
        self.port = port
        self.clock = clock
        self.emit = telemetry.emit

    async def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and body."""
        return await to_thread.run_sync(self._get, path, method)

    def _get(self, path: str, method: str) -> tuple[int, str, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read().decode()


@pytest.fixture
async def face() -> Iterator[Face]:
    clock, metrics = Clock(), Metrics()
    board = Board(clock)
    async with anyio.create_task_group() as group:
        _, port = await group.start(Monitor(metrics, board).run, "127.0.0.1", 0)
        yield Face(port, clock, Telemetry(metrics, board))
        group.cancel_scope.cancel()


async def test_metrics_are_served(face: Face) -> None:
    face.emit(Received("p", "s", 3, 30))
    status, content_type, body = await face.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert 'flowstream_received_messages_total{pipeline="p",stream="s"} 3.0' in body


async def test_the_snapshot_is_json(face: Face) -> None:
    face.emit(Received("p", "s", 3, 30))
    status, content_type, body = await face.get("/api/snapshot")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body)["pipelines"][0]["in_flight"] == 3


async def test_the_page_needs_nothing_from_elsewhere(face: Face) -> None:
    status, content_type, body = await face.get("/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    outside = set(re.findall(r"https?://[^\s\"']+", body)) - {"http://www.w3.org/2000/svg"}
    assert outside == set()
    assert "innerHTML" not in body


async def test_liveness_is_the_loop(face: Face) -> None:
    assert await face.get("/livez") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_readiness_follows_the_phase_and_progress(face: Face) -> None:
    assert (await face.get("/readyz"))[0] == 503
    face.emit(PhaseChanged("p", "starting", 0))
    assert "p/phase: the run is starting" in (await face.get("/readyz"))[2]
    face.emit(PhaseChanged("p", "running", 1))
    assert (await face.get("/readyz"))[::2] == (200, "ready\n")
    face.emit(Received("p", "s", 5, 50))
    face.clock.now += STUCK_AFTER + 1
    status, _, body = await face.get("/readyz?verbose")
    assert status == 503
    assert "[+] p/phase" in body
    assert "[-] p/progress: 5 in flight" in body
    face.emit(Settled("p", "s", "ok", 5))
    assert (await face.get("/readyz"))[0] == 200


async def test_an_idle_pipeline_is_ready_however_long_it_waits(face: Face) -> None:
    face.emit(PhaseChanged("p", "running", 1))
    face.clock.now += 10 * STUCK_AFTER
    face.emit(Received("p", "s", 5, 50))
    assert (await face.get("/readyz"))[0] == 200


async def test_what_is_not_there_or_not_allowed(face: Face) -> None:
    assert (await face.get("/etc/passwd"))[0] == 404
    assert (await face.get("/metrics", "POST"))[0] == 405
