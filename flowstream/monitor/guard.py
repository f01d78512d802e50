"""Who may ask for what: requests that could come from another site are refused. Pure.

A web page from anywhere can make a browser send requests to this port. What it must not reach are
changes and message bodies. So those are asked for at an IP address or localhost (a name could be
made to point here by somebody else), by the page's own origin where the browser tells it, and a
change has a body of type application/json (which other sites cannot send without being asked
first, and the answer to that is no).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from flowstream.monitor.http import Request, Response


class Refused(Exception):
    """The request is not answered: `status` and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status

    def response(self) -> Response:
        """The answer that says so."""
        return Response(self.status, f"{self}\n".encode())


def check_site(request: Request) -> None:
    """Raise Refused unless the request is for an address, and from the page itself or no page."""
    host = request.headers.get("host", "")
    if not named_by_address(request):
        raise Refused(
            HTTPStatus.FORBIDDEN, f"use an IP address or localhost for this, not {host!r}"
        )
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(HTTPStatus.FORBIDDEN, f"{origin} may not control this run")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Refused(HTTPStatus.FORBIDDEN, "other sites may not control this run")


def checked_body(request: Request) -> dict[str, Any]:
    """The JSON object that a change asks for; raises Refused."""
    check_site(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
    try:
        asked = json.loads(request.body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return asked


def requester(request: Request) -> str:
    """Who asks, for logs: the live page, as it was opened somewhere."""
    return f"the live page ({request.peer})" if request.peer else "the live page"


def named_by_address(request: Request) -> bool:
    """Is the request addressed to an IP address or localhost?"""
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if name == "localhost":
            return True
        ip_address(name)
    except ValueError:
        return False
    return True
