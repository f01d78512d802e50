"""Refuses requests for changes or message bodies that another site could have sent. Pure.

Any web page can make a browser send requests to this port. Such a request must neither change
anything nor return message bodies. So these requests need

* an IP address or localhost as host: a site can make its own host name resolve to this machine;
* the origin of the live page, if the browser sends an origin;
* for a change, a body of type application/json: before another site may send one, a browser asks
  this server for permission, which it never gives.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from flowstream.monitor.http import Request, Response


class Refused(Exception):
    """The request is refused with this status and reason."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status

    def response(self) -> Response:
        """The response to the request."""
        return Response(self.status, f"{self}\n".encode())


def check_site(request: Request) -> None:
    """Raise Refused unless the host is an address, and no other site sent the request."""
    host = request.headers.get("host", "")
    if not named_by_address(request):
        raise Refused(
            HTTPStatus.FORBIDDEN, f"host {host!r}: use an IP address or localhost for this request"
        )
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(HTTPStatus.FORBIDDEN, f"pages of {origin} may not control this run")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Refused(HTTPStatus.FORBIDDEN, "pages of other sites may not control this run")


def checked_body(request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request for a change; raises Refused."""
    check_site(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "the content type of the body must be application/json",
        )
    try:
        asked = json.loads(request.body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return asked


def requester(request: Request) -> str:
    """Who sent the request, for logs: the live page, and the address of its browser."""
    return f"the live page ({request.peer})" if request.peer else "the live page"


def named_by_address(request: Request) -> bool:
    """Whether the host of the request is an IP address or localhost."""
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if name == "localhost":
            return True
        ip_address(name)
    except ValueError:
        return False
    return True
