"""The HTTP endpoints of a run, path by path."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from flowstream.metrics import Metrics
from flowstream.monitor.board import Board
from flowstream.monitor.control import control
from flowstream.monitor.dead_letters import DeadLetterEndpoint, DeadLetters
from flowstream.monitor.gauges import refresh
from flowstream.monitor.guard import named_by_address
from flowstream.monitor.health import Check, readiness
from flowstream.monitor.history import resident_memory
from flowstream.monitor.http import Request, Response, serve
from flowstream.monitor.settings import settings
from flowstream.telemetry import LoopTurned, Observer

SAMPLE_INTERVAL = 1.0
LOOP_INTERVAL = 0.25

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
SCRIPTS = (
    "main.js", "pipeline.js", "control.js", "graph.js", "reasons.js", "letters.js", "settings.js",
    "run.js", "workers.js", "chart.js", "parts.js", "format.js",
)  # fmt: skip
PAGE = {
    "/": ("index.html", _HTML),
    "/runbooks": ("runbooks.html", _HTML),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/page/{name}": (name, _SCRIPT) for name in SCRIPTS},
}
"""The files of the live page: path -> file and content type."""
Routes = Mapping[str, Callable[[Request], Awaitable[Response]]]


class Monitor:
    """The HTTP endpoints of a run: metrics, health checks and the live page.

    | path | response |
    | --- | --- |
    | `/` | the live page; its files are below `/page/` |
    | `/runbooks` | what to do about each problem |
    | `/api/snapshot` | the board as JSON, which the page reads once a second |
    | `/api/settings` | the options in force of the pipeline `?pipeline=` |
    | `/api/dead-letters` | those of `?pipeline=`, or the one at `&offset=`; POST replays them |
    | `/metrics` | the metrics for Prometheus, as text or OpenMetrics |
    | `/livez` | 200 while the event loop responds |
    | `/startupz` | 200 once every pipeline has been ready, else 503 |
    | `/readyz` | 200 while every pipeline makes progress, else 503; `?verbose` lists all checks |
    | `/api/control` | POST, with `control=True` only: pause, resume, rate limit |

    Everyone who can reach the port can read it, including the bodies of failed messages (requested
    by IP address or localhost, see guard.py). With `control=True` they can also pause pipelines and
    replay dead letters. Listen on loopback, or behind a proxy that authenticates.
    """

    def __init__(
        self,
        metrics: Metrics,
        board: Board,
        *,
        control: bool = False,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self._metrics = metrics
        self._board = board
        self.control: bool = control
        self._letters = None
        if dead_letters is not None:
            self._letters = DeadLetterEndpoint(dead_letters, board.log_event, control=control)
        self._started: set[str] = set()
        metrics.before_scrape.append(lambda metrics: refresh(metrics, board))
        self._routes: Routes = {
            "/api/snapshot": self._snapshot,
            "/api/settings": self._settings,
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

    async def answer(self, request: Request) -> Response:
        """The response to one request."""
        if request.path == "/api/control":
            return control(request, allowed=self.control)
        if request.path == "/api/dead-letters" and self._letters is not None:
            return await self._letters.answer(request)
        return await routed(request, self._routes)

    async def _snapshot(self, request: Request) -> Response:
        by_address = named_by_address(request)
        shown = self._board.snapshot() | {"control": self.control, "samples": by_address}
        for pipeline in self.with_dead_letters(shown)["pipelines"]:
            if not by_address:
                for reason in pipeline["reasons"]:
                    reason["sample"] = None
        return Response(body=json.dumps(shown).encode(), content_type=_JSON)

    def with_dead_letters(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """The snapshot with the dead-letter stream of each pipeline."""
        letters = {} if self._letters is None else self._letters.streams
        for pipeline in snapshot["pipelines"]:
            pipeline["dead_letters"] = letters.get(pipeline["name"])
        return snapshot

    async def _settings(self, request: Request) -> Response:
        figures = self._board.pipelines.get(request.query.get("pipeline", ""))
        if figures is None or figures.pipeline is None:
            return Response(HTTPStatus.NOT_FOUND, b"no pipeline of this name is running\n")
        running = figures.pipeline.running
        return Response(
            body=json.dumps(settings(figures.pipeline, running)).encode(), content_type=_JSON
        )

    async def _exposition(self, request: Request) -> Response:
        await to_thread.run_sync(self._metrics.measure_process)
        content_type, body = self._metrics.exposition(request.headers.get("accept", ""))
        return Response(body=body, content_type=content_type)

    async def _ready(self, request: Request) -> Response:
        return _checked(readiness(self._board.health()), request, "ready")

    async def _startup(self, request: Request) -> Response:
        """A pipeline that was ready once has started; /readyz covers later problems."""
        checks = readiness(self._board.health())
        failing = {check.pipeline for check in checks if not check.ok}
        self._started |= {check.pipeline for check in checks} - failing
        return _checked([c for c in checks if c.pipeline not in self._started], request, "started")


async def routed(request: Request, routes: Routes) -> Response:
    """The response of a path: the live page's files, `/livez`, or one of `routes`."""
    if request.path in PAGE:
        route: Callable[[Request], Awaitable[Response]] = _page
    elif request.path == "/livez":
        route = _live
    elif request.path in routes:
        route = routes[request.path]
    else:
        return Response(HTTPStatus.NOT_FOUND, b"there is no such page; the live page is at /\n")
    if request.method not in {"GET", "HEAD"}:
        return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", headers={"allow": "GET"})
    return await route(request)


async def _page(request: Request) -> Response:
    name, content_type = PAGE[request.path]
    return Response(body=await to_thread.run_sync(page_part, name), content_type=content_type)


async def _live(_: Request) -> Response:
    return Response(body=b"ok\n")


def _checked(checks: Sequence[Check], request: Request, word: str) -> Response:
    failed = [check for check in checks if not check.ok]
    shown = checks if "verbose" in request.query else failed
    lines = [
        f"[{'+' if check.ok else '-'}] {check.pipeline}/{check.name}: {check.detail}"
        for check in shown
    ]
    return verdict(lines, word, ok=not failed)


def verdict(lines: Sequence[str], word: str, *, ok: bool) -> Response:
    """The response of a health check: its lines, and 200 or 503."""
    text = "\n".join([*lines, word if ok else f"not {word}"]) + "\n"
    return Response(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, text.encode())


@cache
def page_part(name: str) -> bytes:
    """A file of the live page. It reads the file: call it in a worker thread."""
    return (files("flowstream.monitor") / "page" / name).read_bytes()


async def keep_sampling(board: Board, observer: Observer | None = None) -> None:
    """Sample the board once a second until cancelled, and report event-loop lag to `observer`."""
    ticks = 0
    looking = anyio.CapacityLimiter(1)  # of its own: hung handlers may occupy all other threads
    while True:
        due = anyio.current_time() + LOOP_INTERVAL
        await anyio.sleep_until(due)
        if observer is not None:
            observer.observe(LoopTurned(anyio.current_time() - due))
        ticks += 1
        if ticks % round(SAMPLE_INTERVAL / LOOP_INTERVAL) == 0:
            board.sample(
                await to_thread.run_sync(resident_memory, limiter=looking, abandon_on_cancel=True)
            )
