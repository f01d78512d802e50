"""The HTTP endpoints of a run of several workers."""

from __future__ import annotations

import json

import pytest

from flowstream.monitor import Request, WorkerView
from flowstream.monitor.app import PAGE
from flowstream.monitor.workers.app import divided
from flowstream.telemetry import Settled, Telemetry
from tests.monitor.workers.faces import NOW, Several
from tests.monitor.workers.test_families import SETTLED, value

pytestmark = pytest.mark.anyio
LOCAL = {"host": "127.0.0.1:9464"}


def get(path: str, host: str = "127.0.0.1:9464", **query: str) -> Request:
    return Request("GET", path, query, {"host": host})


def post(body: object) -> Request:
    headers = {**LOCAL, "content-type": "application/json"}
    return Request("POST", "/api/control", {}, headers, json.dumps(body).encode())


async def test_metrics_come_from_all_workers_and_from_those_that_have_ended() -> None:
    several = Several()
    several.end(2)
    response = await several.monitor.answer(get("/metrics"))
    assert value(response.body, SETTLED, worker="1", outcome="ok") == 100
    assert value(response.body, SETTLED, worker="2", outcome="ok") == 50


async def test_no_counter_falls_when_a_worker_is_killed() -> None:
    """What a scrape shows is what the parent keeps of a worker."""
    several = Several()
    gone = several.workers[1]
    Telemetry(gone.metrics).emit(Settled("p", "s-1", "ok", 7, 0.01))
    for _ in range(2):
        response = await several.monitor.answer(get("/metrics"))
        assert value(response.body, SETTLED, worker="2", outcome="ok") == 57
        if gone in several.workers:
            several.end(2)


async def test_a_worker_that_does_not_answer_keeps_its_last_metrics() -> None:
    several = Several()
    await several.monitor.answer(get("/metrics"))
    several.workers[0].silent = True
    response = await several.monitor.answer(get("/metrics"))
    assert value(response.body, SETTLED, worker="1", outcome="ok") == 100


async def test_the_run_is_ready_when_its_workers_are() -> None:
    several = Several()
    assert (await several.monitor.answer(get("/readyz"))).status == 200
    assert (await several.monitor.answer(get("/startupz"))).status == 200
    assert (await several.monitor.answer(get("/livez"))).body == b"ok\n"
    several.waiting = [WorkerView(3, "starting", NOW)]
    response = await several.monitor.answer(get("/readyz", verbose=""))
    assert response.status == 503
    lines = response.body.decode().splitlines()
    assert "[-] /phase: worker 3 is not running" in lines
    assert "worker 2: [+] p/phase: the run is running" in lines
    assert lines[-1] == "not ready"
    assert (await several.monitor.answer(get("/startupz"))).status == 503


async def test_samples_are_shown_to_requests_for_an_address_only() -> None:
    several = Several()
    shown = json.loads((await several.monitor.answer(get("/api/snapshot"))).body)
    assert shown["samples"]
    assert shown["control"]
    named = json.loads((await several.monitor.answer(get("/api/snapshot", host="evil.com"))).body)
    assert not named["samples"]


async def test_one_worker_can_be_chosen_on_the_page() -> None:
    several = Several()
    shown = json.loads((await several.monitor.answer(get("/api/snapshot", worker="2"))).body)
    assert [it["number"] for it in shown["workers"]] == [2]
    for odd in ("", "x", "-1", "9" * 50):
        response = await several.monitor.answer(get("/api/snapshot", worker=odd))
        assert response.status == 200


async def test_a_limit_is_divided_and_a_pause_reaches_all() -> None:
    asked = post({"pipeline": "p", "action": "rate_limit", "messages": 10})
    assert json.loads(divided(asked, json.loads(asked.body), 4).body)["messages"] == 2.5
    pause = post({"pipeline": "p", "action": "pause"})
    assert divided(pause, json.loads(pause.body), 4) is pause


async def test_a_change_that_a_worker_refuses_is_refused() -> None:
    several = Several()
    foreign = Request("POST", "/api/control", {}, {"host": "evil.com"}, b"{}")
    response = await several.monitor.answer(foreign)
    assert response.status == 403
    assert several.changes == []
    for body in (b"", b"[]", b"{", b"\xff"):
        odd = Request("POST", "/api/control", {}, {**LOCAL, "content-type": "application/json"},
                      body)  # fmt: skip
        assert (await several.monitor.answer(odd)).status in {400, 404, 503}


async def test_every_page_of_one_process_is_there() -> None:
    several = Several()
    for path in PAGE:
        assert (await several.monitor.answer(get(path))).status == 200
    assert (await several.monitor.answer(get("/nowhere"))).status == 404
    assert (await several.monitor.answer(get("/figures"))).status == 404
    wrong = Request("POST", "/metrics", {}, LOCAL)
    assert (await several.monitor.answer(wrong)).status == 405


async def test_without_workers_nothing_breaks() -> None:
    several = Several()
    several.workers.clear()
    assert (await several.monitor.answer(get("/api/settings", pipeline="p"))).status == 503
    assert (await several.monitor.answer(post({"pipeline": "p", "action": "pause"}))).status == 503
    assert (await several.monitor.answer(get("/metrics"))).status == 200
    assert (await several.monitor.answer(get("/readyz"))).status == 503


async def test_a_pipeline_that_no_worker_runs_is_named() -> None:
    response = await Several().monitor.answer(post({"pipeline": "nope", "action": "pause"}))
    assert (response.status, response.body) == (404, b"no pipeline 'nope' is running\n")
