"""/api/control: pause, resume and rate limit, for requests of the live page only (guard.py)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flowstream.errors import ConfigurationError
from flowstream.monitor.guard import Refused, checked_body, requester
from flowstream.monitor.http import Request, Response
from flowstream.pipeline import RateLimit, RunningPipeline, running_pipelines
from flowstream.texts import shown

DRAIN = "; to drain the run, send it SIGTERM"
WAYS = {
    "drain": DRAIN,
    "stop": DRAIN,
    "resize": "; to change the number of workers, start the run again with other --workers, or "
    "another concurrency= of its stages",
}
"""What to do about actions that people expect here."""


def control(request: Request, *, allowed: bool) -> Response:
    """Make the change that the body requests: {"pipeline", "action", "messages"}.

    `action` is "pause", "resume" or "rate_limit"; `messages` is per second, and null for no limit.
    """
    if request.method != "POST":
        return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"POST only\n", headers={"allow": "POST"})
    if not allowed:
        return Response(
            HTTPStatus.FORBIDDEN,
            b"controls are disabled; start the run with --http-control to allow them\n",
        )
    try:
        requested = checked_body(request)
        _apply(_running(requested.get("pipeline")), requested, requester(request))
    except Refused as refused:
        return refused.response()
    return Response(body=b'{"ok": true}\n', content_type="application/json")


def _running(name: Any) -> RunningPipeline:
    for running in running_pipelines():
        if running.name == name:
            return running
    raise Refused(HTTPStatus.NOT_FOUND, f"no pipeline {name!r} is running")


def _apply(running: RunningPipeline, requested: dict[str, Any], by: str) -> None:
    match requested.get("action"):
        case "pause":
            running.pause(by=by)
        case "resume":
            running.resume(by=by)
        case "rate_limit":
            running.set_rate_limit(_limit(requested.get("messages")), by=by)
        case other:
            way = WAYS.get(other, "") if isinstance(other, str) else ""
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"action={shown(other)}: expected pause, resume or rate_limit{way}",
            )


def _limit(messages: Any) -> RateLimit | None:
    if messages is None:
        return None
    if type(messages) in (int, float) and messages <= 0:
        said = (
            f"messages={shown(messages)}: a limit is a number of messages per second above 0; null "
            "removes the limit, and the action pause stops the intake"
        )
        raise Refused(HTTPStatus.BAD_REQUEST, said)
    try:
        return RateLimit(messages=messages)
    except ConfigurationError:  # it allows 0, which is refused above
        said = (
            f"messages={shown(messages)}: expected a number of messages per second, from 1e-06 to "
            "1e+15, or null for no limit"
        )
        raise Refused(HTTPStatus.BAD_REQUEST, said) from None
