"""RabbitMQ's management HTTP API: what the stream protocol has no command for.

Only standard-library HTTP, in a worker thread. Errors name the address without user and password,
and no text of the HTTP library is quoted.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.output import why
from flowstream.client import StreamUrl, UrlParts
from flowstream.errors import ConfigurationError

DEFAULT_PORT = 15672
EXAMPLE = "http://user:password@host:15672"
PAGE = 500
TIMEOUT = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Credentials are for the address they were given for, and for no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True)
class Management:
    """An address of the API with its credentials, such as http://guest:guest@localhost:15672."""

    base: str
    user: str
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str, option: str = "--management") -> Management:
        """Raises `CommandError`, which names `option` and what is wrong, and shows no part of the
        URL."""
        try:
            parts = UrlParts.split(url, schemes=("http", "https"), example=EXAMPLE)
            if len(parts.hosts) > 1:
                raise ConfigurationError("one host is expected")
        except ConfigurationError as error:
            raise CommandError(f"{option}: {error}", ExitCode.USAGE) from None
        host, port = parts.hosts[0]
        host = f"[{host}]" if ":" in host else host
        base = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}"
        return cls(base + parts.path.rstrip("/"), parts.user or "guest", parts.password or "guest")

    @classmethod
    def beside(cls, broker_url: str) -> Management:
        """Where the API of the broker at `broker_url` is when nobody moved it."""
        url = StreamUrl.parse(broker_url)
        base = f"http://{url.address._replace(port=DEFAULT_PORT)}"
        return cls(base, url.user, url.password)

    def get(self, path: str) -> Any:
        """The JSON at `/api/` + `path`. Blocks: call it in a thread."""
        return self._ask(path)[0]

    def date(self) -> str | None:
        """The API's clock, as its Date header has it. Blocks: call it in a thread."""
        return self._ask("whoami")[1]

    def _ask(self, path: str) -> tuple[Any, str | None]:
        """(JSON, Date header)."""
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - only http and https get here
            f"{self.base}/api/{path}", headers={"authorization": f"Basic {credentials}"}
        )
        try:
            with _OPENER.open(request, timeout=TIMEOUT) as answer:
                return json.load(answer), answer.headers.get("date")
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = _reason(error)
            raise CommandError(
                f"no management API at {self.base} ({reason}); the stream protocol cannot list "
                "streams, so give the API's address with --management URL, or ask for streams by "
                "name: flowstream streams stats NAME",
                ExitCode.CONNECTION,
            ) from error

    def _refused(self, error: urllib.error.HTTPError) -> CommandError:
        if error.code in {401, 403}:
            return CommandError(
                f"the management API at {self.base} refused user {self.user!r}",
                ExitCode.AUTHENTICATION,
            )
        if error.code == 404:
            return CommandError(
                f"the management API at {self.base} does not know the virtual host",
                ExitCode.VIRTUAL_HOST,
            )
        return CommandError(
            f"the management API at {self.base} answered {_status(error.code)}",
            ExitCode.SERVER,
        )

    def streams(self, vhost: str) -> list[dict[str, Any]]:
        """Every stream of a virtual host, as the API describes queues."""
        queues = self._pages(f"queues/{quote(vhost, safe='')}")
        found = [queue for queue in queues if queue.get("type") == "stream"]
        return sorted(found, key=lambda queue: str(queue["name"]))

    def super_streams(self, vhost: str) -> list[str]:
        """The names of the virtual host's super streams: exchanges that are marked as such."""
        exchanges = self._pages(f"exchanges/{quote(vhost, safe='')}")
        return sorted(
            str(it["name"]) for it in exchanges if it.get("arguments", {}).get("x-super-stream")
        )

    def stream_consumers(self, vhost: str) -> list[dict[str, Any]]:
        """Every stream consumer of a virtual host, each with its connection's name as
        `connection`; needs the plugin rabbitmq_stream_management."""
        name = quote(vhost, safe="")
        names = {
            it["name"]: it.get("client_properties", {}).get("connection_name", "")
            for it in self.get(f"stream/connections/{name}")
        }
        return [
            {**it, "connection": names.get(dict(it["connection_details"]).get("name"), "")}
            for it in self.get(f"stream/consumers/{name}")
        ]

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        page = pages = 1
        while page <= pages:
            answer = self.get(f"{path}?page={page}&page_size={PAGE}")
            yield from answer["items"]
            pages = answer["page_count"]
            page += 1


def _reason(error: BaseException) -> str:
    """Why nothing came of it, in words of our own: those of the libraries quote addresses."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:g} s"
    if isinstance(error, socket.gaierror):
        return "the host name does not resolve"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "it does not complete a TLS handshake"
    if isinstance(error, OSError) and error.strerror:
        return why(error)
    return "what answers is not the management API"


def _status(code: int) -> str:
    known = code in {each.value for each in HTTPStatus}
    return f"{code} {HTTPStatus(code).phrase}" if known else f"{code}"
