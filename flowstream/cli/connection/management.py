"""A client of RabbitMQ's management HTTP API, for what the stream protocol cannot answer.

It uses the HTTP client of the standard library, in a worker thread. Errors name the address without
user and password, and quote no text of the HTTP library, which may contain both.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import why
from flowstream.client import Address, StreamUrl, UrlParts
from flowstream.errors import ConfigurationError

T = TypeVar("T")

PORT, TLS_PORT = 15672, 15671
BROKER = "RabbitMQ"
"""The product that a broker with this API says it is."""

EXAMPLE = "http://user:password@host:15672"
PAGE = 500
TIMEOUT = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: credentials are only for the address that they were given with."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(ca_file: str | Path | None) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CommandError(
            f"tls_ca={ca_file}: the certificates in this file cannot be read ({why(error)})",
            ExitCode.DECLARATION,
        ) from None
    return urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))


@dataclass(frozen=True, slots=True)
class Management:
    """The API at an address, with credentials, such as http://guest:guest@localhost:15672.

    With https, `ca_file` has the certificate authorities to trust instead of the system's.
    """

    base: str
    user: str
    password: str = field(repr=False)
    ca_file: str | Path | None = None

    @classmethod
    def parse(cls, url: str, option: str = "--management") -> Management:
        """The API at a URL. The CommandError for an invalid one shows no part of it."""
        try:
            parts = UrlParts.split(url, schemes=("http", "https"), example=EXAMPLE)
            if len(parts.hosts) > 1:
                raise ConfigurationError("one host is expected")
        except ConfigurationError as error:
            raise CommandError(f"{option}: {error}", ExitCode.USAGE) from None
        host, port = parts.hosts[0]
        host = f"[{host}]" if ":" in host else host
        base = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}"
        path = parts.path.rstrip("/").removesuffix("/api")
        return cls(base + path, parts.user or "guest", parts.password or "guest")

    @classmethod
    def beside(cls, url: StreamUrl, node: Address, ca_file: str | Path | None = None) -> Management:
        """The API on its default port at `node`, with the credentials of `url`."""
        if url.tls:
            base = f"https://{node._replace(port=TLS_PORT)}"
            return cls(base, url.user, url.password, ca_file)
        return cls(f"http://{node._replace(port=PORT)}", url.user, url.password)

    def get(self, path: str) -> Any:
        """The JSON at `/api/` + `path`. Blocks: call it in a thread."""
        return self._ask(path)[0]

    def date(self) -> str | None:
        """The time of the server, from the Date header. Blocks: call it in a thread."""
        return self._ask("whoami")[1]

    def _ask(self, path: str) -> tuple[Any, str | None]:
        """(JSON, Date header)."""
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - only http and https get here
            f"{self.base}/api/{path}", headers={"authorization": f"Basic {credentials}"}
        )
        try:
            with _opener(self.ca_file).open(request, timeout=TIMEOUT) as answer:
                return json.load(answer), answer.headers.get("date")
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error, path) from error
        except (OSError, HTTPException, ValueError) as error:
            raise CommandError(
                f"no management API at {self.base} ({_reason(error)})", ExitCode.CONNECTION
            ) from error

    def _refused(self, error: urllib.error.HTTPError, path: str) -> CommandError:
        if error.code in {401, 403}:
            return CommandError(
                f"the management API at {self.base} refused user {self.user!r}",
                ExitCode.AUTHENTICATION,
            )
        if error.code == 404 and path.startswith("stream/"):
            return CommandError(
                f"the management API at {self.base} does not list stream consumers; enable the "
                "plugin rabbitmq_stream_management on the broker",
                ExitCode.NOT_SUPPORTED,
            )
        if error.code == 404:
            return CommandError(
                f"{self.base} does not have this virtual host, or is not a management API (its "
                f"usual port is {PORT})",
                ExitCode.VIRTUAL_HOST,
            )
        return CommandError(
            f"the management API at {self.base} answered {_status(error.code)}",
            ExitCode.SERVER,
        )

    def answer(self, ask: Callable[[Management], T]) -> T:
        """The result of `ask(self)`. Blocks: call it in a thread.

        Raises CommandError if the answers do not have the form of the management API's.
        """
        try:
            return ask(self)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CommandError(
                f"{self.base} answers, but is not a management API", ExitCode.CONNECTION
            ) from error

    def cluster(self) -> str | None:
        """The name of the cluster that it belongs to."""
        name = self.get("overview")["cluster_name"]
        return None if name is None else str(name)

    def sees_everything(self) -> bool:
        """Whether the user may see the connections of other users."""
        tags = self.get("whoami")["tags"]
        return any(tag in tags for tag in ("administrator", "monitoring"))

    def streams(self, vhost: str) -> list[dict[str, Any]]:
        """Every stream of a virtual host, as the API describes queues."""
        queues = self._pages(f"queues/{quote(vhost, safe='')}")
        found = [queue for queue in queues if queue.get("type") == "stream"]
        return sorted(found, key=lambda queue: str(queue["name"]))

    def super_streams(self, vhost: str) -> list[str]:
        """The names of a virtual host's super streams, which are marked exchanges."""
        exchanges = self._pages(f"exchanges/{quote(vhost, safe='')}")
        return sorted(
            str(it["name"]) for it in exchanges if it.get("arguments", {}).get("x-super-stream")
        )

    def stream_consumers(self, vhost: str) -> list[dict[str, Any]]:
        """Every stream consumer of a virtual host, as the API describes it.

        `connection` is the name of its connection, and `process` the process that the client
        reported: "" if it reported none, None if the connection is too new to be listed. The broker
        needs the plugin rabbitmq_stream_management.
        """
        name = quote(vhost, safe="")
        clients = {
            it["name"]: dict(it.get("client_properties", {}))
            for it in self.get(f"stream/connections/{name}")
        }
        consumers = []
        for it in self.get(f"stream/consumers/{name}"):
            client = clients.get(dict(it["connection_details"]).get("name"))
            known = {} if client is None else client
            process = None if client is None else known.get("process", "")
            consumers.append(
                {**it, "connection": known.get("connection_name", ""), "process": process}
            )
        return consumers

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        page = pages = 1
        while page <= pages:
            answer = self.get(f"{path}?page={page}&page_size={PAGE}")
            yield from answer["items"]
            pages = answer["page_count"]
            page += 1


def _reason(error: BaseException) -> str:
    """The reason of a failure, without the libraries' own texts, which quote addresses."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:g} s"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "the host name does not resolve"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, OSError) and error.strerror:
        return why(error)
    return "the answer is not that of a management API"


def _status(code: int) -> str:
    known = code in {each.value for each in HTTPStatus}
    return f"{code} {HTTPStatus(code).phrase}" if known else f"{code}"
