"""Each path answers, over a real socket."""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from importlib.resources import files

import anyio
import pytest
from anyio import to_thread

from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, keep_sampling
from flowstream.monitor.advice import ADVICE, advice
from flowstream.monitor.app import PAGE
from flowstream.pipeline import IterableProducer, Pipeline, Reason
from flowstream.telemetry import Received, Telemetry
from tests.monitor.figures import RUNNING, Changing
from tests.monitor.runbooks import runbooks

pytestmark = pytest.mark.anyio


class Face:
    """A monitor on a free port, and what feeds it."""

    def __init__(self, port: int, board: Board, telemetry: Telemetry) -> None:
        self.port = port
        self.board = board
        self.emit = telemetry.emit
        self.statistics = Changing()

    def watch(self) -> None:
        self.board.watch("p", self.statistics)

    async def get(
        self, path: str, method: str = "GET", host: str = "127.0.0.1"
    ) -> tuple[int, str, str]:
        """Status, content type and body."""
        return await to_thread.run_sync(self._get, path, method, host)

    def _get(self, path: str, method: str, host: str) -> tuple[int, str, str]:
        address = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(address, method=method, headers={"host": host})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read().decode()


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    metrics, board = Metrics(), Board()
    async with anyio.create_task_group() as group:
        _, port = await group.start(Monitor(metrics, board).run, "127.0.0.1", 0)
        yield Face(port, board, Telemetry(metrics, board))
        group.cancel_scope.cancel()


async def test_metrics_join_events_and_statistics(face: Face) -> None:
    face.watch()
    face.emit(Received("p", "s", 3, 30))
    status, content_type, body = await face.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert 'flowstream_received_messages_total{pipeline="p",stream="s"} 3.0' in body
    assert 'flowstream_in_flight_messages{pipeline="p"} 50.0' in body
    assert 'flowstream_waiting_messages{pipeline="p",stage="processor"} 30.0' in body
    assert 'flowstream_lag_messages{pipeline="p",stream="s"} 450.0' in body


async def test_the_snapshot_is_json(face: Face) -> None:
    face.watch()
    status, content_type, body = await face.get("/api/snapshot")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body)["pipelines"][0]["in_flight"] == 50


async def test_what_is_not_ready_says_what_to_do(face: Face) -> None:
    face.watch()
    face.statistics.change(uncommitted=100.0)
    (problem,) = json.loads((await face.get("/api/snapshot"))[2])["not_ready"]
    assert (problem["pipeline"], problem["check"]) == ("p", "commits")
    assert problem["runbook"].endswith("#flowstreamnotcommitting")
    assert problem["advice"]


async def test_messages_are_shown_by_address_only(face: Face) -> None:
    """A name could be made to point here by a page from anywhere, which would read them."""
    reason = Reason(
        "processor", "process", "ValueError", "no", 2, 0, 2, 0, 0, 1.0, 2.0, "s", 7, "Trace", "{}"
    )
    face.watch()
    face.statistics.change(reasons=(reason,))
    for host, sample in (("127.0.0.1", "{}"), ("localhost", "{}"), ("evil.example", None)):
        body = (await face.get("/api/snapshot", host=host))[2]
        (shown,) = json.loads(body)["pipelines"][0]["reasons"]
        assert (shown["traceback"], shown["sample"]) == ("Trace", sample)
        assert json.loads(body)["samples"] is (sample is not None)


async def test_settings_are_those_of_the_pipeline_that_is_asked_for(face: Face) -> None:
    pipeline = Pipeline("p", IterableProducer([]), max_in_flight=77)
    face.board.watch("p", face.statistics, pipeline)
    status, _, body = await face.get("/api/settings?pipeline=p")
    (options, *_) = json.loads(body)
    assert (status, options["kind"], options["name"]) == (200, "pipeline", "p")
    assert {"77"} == {it["value"] for it in options["options"] if it["name"] == "max_in_flight"}
    assert (await face.get("/api/settings?pipeline=q"))[0] == 404
    assert (await face.get("/api/settings"))[0] == 404


async def test_runbooks_are_those_of_the_docs(face: Face) -> None:
    status, _, body = await face.get("/runbooks")
    assert status == 200
    assert body == runbooks(), "run python -m tests.monitor.runbooks"
    for name in ADVICE:
        assert f'id="{advice(name)["runbook"].partition("#")[2]}"' in body


async def test_the_page_needs_nothing_from_elsewhere(face: Face) -> None:
    status, content_type, body = await face.get("/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    folder = files("flowstream.monitor") / "page"
    assert {part.name for part in folder.iterdir()} == {name for name, _ in PAGE.values()}
    assert all(path == f"/page/{name}" for path, (name, _) in PAGE.items() if "." in path)
    for path in PAGE:
        status, _, body = await face.get(path)
        assert status == 200
        outside = set(re.findall(r"https?://[^\s\"')]+", body)) - {"http://www.w3.org/2000/svg"}
        assert outside == set()
        assert "innerHTML" not in body


async def test_liveness_is_the_loop(face: Face) -> None:
    assert await face.get("/livez") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_readiness_follows_the_phase_and_progress(face: Face) -> None:
    assert (await face.get("/readyz"))[0] == 503
    face.watch()
    face.statistics.change(phase="starting")
    assert "p/phase: the run is starting" in (await face.get("/readyz"))[2]
    face.statistics.change(phase="running")
    assert (await face.get("/readyz"))[::2] == (200, "ready\n")
    face.statistics.change(uncommitted=100.0)
    status, _, body = await face.get("/readyz?verbose")
    assert status == 503
    assert "[+] p/phase" in body
    assert "[-] p/commits: settled messages have been waiting for a commit for 100 s" in body
    assert 'flowstream_ready{check="commits",pipeline="p"} 0.0' in (await face.get("/metrics"))[2]
    face.statistics.change(uncommitted=0.0)
    assert (await face.get("/readyz"))[0] == 200


async def test_startup_is_over_once_every_pipeline_was_ready(face: Face) -> None:
    face.board.expect("p")
    face.board.expect("q")
    assert (await face.get("/startupz"))[0] == 503
    face.watch()
    status, _, body = await face.get("/startupz")
    assert (status, body) == (503, "[-] q/phase: the run is starting\nnot started\n")
    face.board.watch("q", Changing(dataclasses.replace(RUNNING, pipeline="q")))
    assert (await face.get("/startupz"))[::2] == (200, "started\n")
    face.statistics.change(phase="draining")
    assert (await face.get("/startupz"))[0] == 200
    assert (await face.get("/readyz"))[0] == 503


async def test_a_scrape_forgets_partitions_that_went_elsewhere(face: Face) -> None:
    face.watch()
    assert 'flowstream_lag_messages{pipeline="p",stream="s"}' in (await face.get("/metrics"))[2]
    face.statistics.change(partitions=())
    assert "flowstream_lag_messages{" not in (await face.get("/metrics"))[2]


async def test_the_loop_is_measured_and_the_board_sampled() -> None:
    metrics, board, statistics = Metrics(), Board(), Changing()
    board.watch("p", statistics)
    async with anyio.create_task_group() as group:
        group.start_soon(keep_sampling, board, metrics)
        while len(board.snapshot()["pipelines"][0]["history"]["at"]) < 1:
            await anyio.sleep(0.05)
        assert board.snapshot()["process"]["memory"] != 0
        group.cancel_scope.cancel()
    assert (metrics.registry.get_sample_value("flowstream_event_loop_lag_seconds_count") or 0) >= 4


async def test_what_is_not_there_or_not_allowed(face: Face) -> None:
    assert (await face.get("/etc/passwd"))[0] == 404
    assert (await face.get("/metrics", "POST"))[0] == 405
