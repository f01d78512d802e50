"""What the HTTP face of a run answers, path by path."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from http import HTTPStatus
from importlib.resources import files

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from flowstream.metrics import Metrics
from flowstream.monitor.board import Board
from flowstream.monitor.gauges import refresh
from flowstream.monitor.health import readiness
from flowstream.monitor.http import Request, Response, serve

SAMPLE_INTERVAL = 1.0

_HTML = "text/html; charset=utf-8"
_JSON = "application/json"


class Monitor:
    """The HTTP face of a run: metrics, health, and a live page.

    | path | answer |
    | --- | --- |
    | `/` | the live page |
    | `/api/snapshot` | the board as JSON, which the page reads once a second |
    | `/metrics` | Prometheus (text or OpenMetrics, as asked for) |
    | `/livez` | 200 while the event loop turns |
    | `/readyz` | 200 while every pipeline makes progress, else 503; `?verbose` lists the checks |

    Whoever can reach the port can read it: listen on loopback, or behind something that asks who
    is there.
    """

    def __init__(self, metrics: Metrics, board: Board) -> None:
        self._metrics = metrics
        self._board = board
        metrics.before_scrape.append(lambda metrics: refresh(metrics, board))
        self._routes: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._page,
            "/api/snapshot": self._snapshot,
            "/metrics": self._exposition,
            "/livez": self._live,
            "/readyz": self._ready,
        }

    async def run(
        self,
        host: str,
        port: int,
        *,
        task_status: TaskStatus[tuple[str, int]] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and answer until cancelled; started with the address it listens on."""
        await serve(self.answer, host, port, task_status=task_status)

    async def answer(self, request: Request) -> Response:
        """The response to one request."""
        route = self._routes.get(request.path)
        if route is None:
            return Response(HTTPStatus.NOT_FOUND, b"no such page; see / for the run\n")
        if request.method not in {"GET", "HEAD"}:
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", headers={"allow": "GET"})
        return await route(request)

    async def _page(self, _: Request) -> Response:
        return Response(body=await to_thread.run_sync(_page_html), content_type=_HTML)

    async def _snapshot(self, _: Request) -> Response:
        return Response(body=json.dumps(self._board.snapshot()).encode(), content_type=_JSON)

    async def _exposition(self, request: Request) -> Response:
        content_type, body = self._metrics.exposition(request.headers.get("accept", ""))
        return Response(body=body, content_type=content_type)

    async def _live(self, _: Request) -> Response:
        return Response(body=b"ok\n")

    async def _ready(self, request: Request) -> Response:
        checks = readiness(self._board.statistics())
        failed = [check for check in checks if not check.ok]
        shown = checks if "verbose" in request.query else failed
        lines = [f"[{'+' if check.ok else '-'}] {check.name}: {check.detail}" for check in shown]
        text = "\n".join([*lines, "not ready" if failed else "ready"]) + "\n"
        status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
        return Response(status, text.encode())


@cache
def _page_html() -> bytes:
    return (files("flowstream.monitor") / "page.html").read_bytes()


async def keep_sampling(board: Board) -> None:
    """Sample the board once a second until cancelled."""
    while True:
        await anyio.sleep(SAMPLE_INTERVAL)
        board.sample()
