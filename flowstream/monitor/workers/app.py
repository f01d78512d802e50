"""The HTTP endpoints of a run of several workers, and those of a worker for its parent.

The paths are those of one process. Figures and checks come from all workers, changes go to all,
and what needs one process only (settings, dead letters) is answered by one of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from flowstream.metrics import Metrics
from flowstream.monitor.app import Monitor, Routes, routed, verdict
from flowstream.monitor.board import Board
from flowstream.monitor.guard import named_by_address
from flowstream.monitor.http import Request, Response, serve
from flowstream.monitor.workers.families import exposition, families_of
from flowstream.monitor.workers.snapshots import merged_snapshot, not_ready
from flowstream.monitor.workers.views import Families, WorkersOfRun

FIGURES = "/figures"
"""The path of a worker's snapshot and metrics for its parent. It is not served over HTTP."""

_JSON = "application/json"
_HOST = {"host": "localhost"}
QUICK = 2.0
"""Seconds for a worker to answer with what it knows."""
SLOW = 30.0
"""Seconds for a worker to answer with what it must ask the broker for."""


class WorkerEndpoints:
    """What a worker answers its parent: the endpoints of its monitor, and all figures as data."""

    def __init__(self, monitor: Monitor, board: Board, metrics: Metrics) -> None:
        self._monitor = monitor
        self._board = board
        self._metrics = metrics

    async def answer(self, request: Request) -> Response:
        """The response to one request."""
        if request.path != FIGURES:
            return await self._monitor.answer(request)
        await to_thread.run_sync(self._metrics.measure_process)
        return Response(body=json.dumps(self.figures()).encode(), content_type=_JSON)

    def figures(self) -> dict[str, Any]:
        """The snapshot and the metrics of one moment."""
        snapshot = self._board.snapshot() | {"control": self._monitor.control}
        snapshot = self._monitor.with_dead_letters(snapshot)
        return {"snapshot": snapshot, "families": families_of(self._metrics)}


class WorkersMonitor:
    """The HTTP endpoints of the parent of several workers."""

    def __init__(
        self,
        workers: WorkersOfRun,
        events: Callable[[], Sequence[Mapping[str, Any]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._workers = workers
        self._events = events
        self._clock = clock
        self._was_ready: set[int] = set()
        self._routes: Routes = {
            "/api/snapshot": self._snapshot,
            "/api/settings": partial(self._one, patience=QUICK),
            "/metrics": self._exposition,
            "/readyz": self._ready,
            "/startupz": self._startup,
        }

    async def run(
        self,
        host: str,
        port: int,
        *,
        task_status: TaskStatus[tuple[str, int]] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled. `task_group.start` returns the address that it listens on."""
        await serve(self.answer, host, port, task_status=task_status)

    def snapshot(self, worker: int | None = None) -> dict[str, Any]:
        """The run as one, or one worker of it."""
        views, retired = self._workers.views(), self._workers.retired
        chosen = [view for view in views if worker in (None, view.number)]
        merged = merged_snapshot(
            chosen,
            retired if worker is None else replace(retired, snapshots=[]),
            started=self._workers.started,
            now=self._clock(),
            events=self._events(),
        )
        merged["numbers"] = sorted({view.number for view in views})
        return merged

    async def answer(self, request: Request) -> Response:
        """The response to one request."""
        if request.path == "/api/control":
            return await self._control(request)
        if request.path == "/api/dead-letters":
            return await self._one(request, SLOW)
        return await routed(request, self._routes)

    async def _snapshot(self, request: Request) -> Response:
        text = request.query.get("worker", "")
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None
        shown = self.snapshot(number)
        by_address = named_by_address(request)
        shown["samples"] = by_address
        if not by_address:
            for pipeline in shown["pipelines"]:
                pipeline["reasons"] = [it | {"sample": None} for it in pipeline["reasons"]]
        return Response(body=json.dumps(shown).encode(), content_type=_JSON)

    async def _exposition(self, request: Request) -> Response:
        """Only what the parent keeps is shown, or counters would fall when a worker is killed."""
        await self._workers.look()
        running: list[tuple[int, Families]] = []
        counting = list(self._workers.retired.families)
        for view in self._workers.views():
            (counting if view.replacement else running).append((view.number, view.families))
        content_type, body = exposition(running, counting, request.headers.get("accept", ""))
        return Response(body=body, content_type=content_type)

    async def _ready(self, request: Request) -> Response:
        failing = not_ready(self._workers.views(), self._clock())
        lines = [f"[-] {it['pipeline']}/{it['check']}: {it['detail']}" for it in failing]
        if "verbose" in request.query:
            lines += await self._checks()
        return verdict(lines, "ready", ok=not failing)

    async def _checks(self) -> list[str]:
        """The checks of every worker that pass or fail."""
        lines = []
        for view in self._workers.views():
            lines.append(f"[{'+' if view.state == 'ready' else '-'}] worker {view.number}: "
                         f"{view.state}")  # fmt: skip
            if view.ask is None:
                continue
            asked = Request("GET", "/readyz", {"verbose": ""}, _HOST)
            response = await view.ask(asked, QUICK)
            text = "" if response is None else response.body.decode(errors="replace")
            lines += [f"worker {view.number}: {it}" for it in text.splitlines() if it[:1] == "["]
        return lines

    async def _startup(self, request: Request) -> Response:
        """A worker that was ready once has started; /readyz covers later problems."""
        views = self._workers.views()
        self._was_ready |= {view.number for view in views if view.state == "ready"}
        waiting = {view.number for view in views} - self._was_ready
        lines = [f"[-] worker {number}: it has not been ready yet" for number in sorted(waiting)]
        return verdict(lines, "started", ok=not waiting)

    # -- requests that go to workers

    async def _one(self, request: Request, patience: float) -> Response:
        """The response of one worker that is ready."""
        for view in self._workers.views():
            if view.state == "ready" and view.ask is not None:
                response = await view.ask(request, patience)
                if response is not None:
                    return response
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, b"no worker answers; try again\n")

    async def _control(self, request: Request) -> Response:
        """Make a change in every worker. A limit of the run is divided among them."""
        views = [view for view in self._workers.views() if view.ask is not None]
        asked = _body(request)
        numbers = {view.number for view in views}
        share = divided(request, asked, len(numbers))
        answers, unknown = [], None
        for view in views:
            assert view.ask is not None
            response = await view.ask(share, QUICK)
            if response is not None and response.status == HTTPStatus.NOT_FOUND:
                unknown = response  # or it is still starting, and gets the change when it is ready
                continue
            if response is not None and response.status != HTTPStatus.OK:
                return response
            answers.append((view.number, response))
        silent = sorted(number for number, response in answers if response is None)
        if not answers and unknown is not None:
            return unknown
        if len(silent) == len(answers):
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, b"no worker answers; try again\n")
        self._workers.controlled(share, str(asked.get("pipeline")), str(asked.get("action")))
        if silent:
            text = f"worker {', '.join(map(str, silent))} did not answer; the others have changed\n"
            return Response(HTTPStatus.GATEWAY_TIMEOUT, text.encode())
        return Response(body=b'{"ok": true}\n', content_type=_JSON)


def divided(request: Request, asked: Mapping[str, Any], workers: int) -> Request:
    """The request for one of several workers: each gets an equal part of a rate limit."""
    messages: Any = asked.get("messages")
    if asked.get("action") != "rate_limit" or type(messages) not in (int, float) or workers < 2:
        return request
    return replace(request, body=json.dumps({**asked, "messages": messages / workers}).encode())


def _body(request: Request) -> dict[str, Any]:
    try:
        asked = json.loads(request.body)
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}
