"""Controls of the live page: pause, resume and rate limit, for requests that come from it.

A web page from anywhere can make a browser send requests to this port. So a change is accepted only
with a body of type application/json (which other sites cannot send without being asked first, and
the answer to that is no), from the page's own origin where the browser tells it, and addressed to
an IP address or localhost (a name could be made to point here by somebody else).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from flowstream.errors import ConfigurationError
from flowstream.monitor.http import Request, Response
from flowstream.pipeline import RateLimit, RunningPipeline, running_pipelines
from flowstream.texts import shown


class Refused(Exception):
    """The change is not made: `status` and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


def control(request: Request) -> Response:
    """Make the change that the body asks for: {"pipeline", "action", "messages"}.

    `action` is pause, resume or rate_limit; `messages` a second, null for no limit.
    """
    try:
        _check_origin(request)
        asked = _body(request)
        _apply(_running(asked.get("pipeline")), asked)
    except Refused as refused:
        return Response(refused.status, f"{refused}\n".encode())
    return Response(body=b'{"ok": true}\n', content_type="application/json")


def _check_origin(request: Request) -> None:
    host = request.headers.get("host", "")
    if not _is_local_name(host):
        raise Refused(
            HTTPStatus.FORBIDDEN, f"use an IP address or localhost for controls, not {host!r}"
        )
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(HTTPStatus.FORBIDDEN, f"{origin} may not control this run")
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused(HTTPStatus.FORBIDDEN, "other sites may not control this run")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ip_address(name)
    except ValueError:
        return False
    return True


def _body(request: Request) -> dict[str, Any]:
    try:
        asked = json.loads(request.body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return asked


def _running(name: Any) -> RunningPipeline:
    for running in running_pipelines():
        if running.name == name:
            return running
    raise Refused(HTTPStatus.NOT_FOUND, f"no pipeline {name!r} is running")


def _apply(running: RunningPipeline, asked: dict[str, Any]) -> None:
    match asked.get("action"):
        case "pause":
            running.pause()
        case "resume":
            running.resume()
        case "rate_limit":
            running.rate_limit = _limit(asked.get("messages"))
        case other:
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"action {other!r}: use pause, resume or rate_limit"
            )


def _limit(messages: Any) -> RateLimit | None:
    if messages is None:
        return None
    try:
        return RateLimit(messages=messages)
    except ConfigurationError as error:
        said = f"messages {shown(messages)}: a number a second, or null for no limit ({error})"
        raise Refused(HTTPStatus.BAD_REQUEST, said) from None
