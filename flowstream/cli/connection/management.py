"""RabbitMQ's management HTTP API: what the stream protocol has no command for.

Where nobody names it, it is looked for on the host that the stream connection goes to, and asked
only if its cluster is that connection's: on one host there may be several brokers. Only
standard-library HTTP, in a worker thread. Errors name the address without user and password,
and no text of the HTTP library is quoted.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from flowstream.cli.configuration.settings import settings
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, why
from flowstream.cli.output.progress import doing
from flowstream.client import Address, StreamUrl, UrlParts
from flowstream.errors import ConfigurationError

if TYPE_CHECKING:
    from flowstream.client import Environment

T = TypeVar("T")

PORT, TLS_PORT = 15672, 15671
BROKER = "RabbitMQ"
"""The product that a broker with this API says it is."""

EXAMPLE = "http://user:password@host:15672"
PAGE = 500
TIMEOUT = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Credentials are for the address they were given for, and for no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(ca_file: str | Path | None) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CommandError(
            f"tls_ca={ca_file}: it has no certificates that can be read ({why(error)})",
            ExitCode.DECLARATION,
        ) from None
    return urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))


@dataclass(frozen=True, slots=True)
class Management:
    """An address of the API with its credentials, such as http://guest:guest@localhost:15672.

    `ca_file` has the authorities to trust with https instead of the system's.
    """

    base: str
    user: str
    password: str = field(repr=False)
    ca_file: str | Path | None = None

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
        path = parts.path.rstrip("/").removesuffix("/api")
        return cls(base + path, parts.user or "guest", parts.password or "guest")

    @classmethod
    def beside(cls, url: StreamUrl, node: Address, ca_file: str | Path | None = None) -> Management:
        """Where the API of the broker at `node` is when nobody moved it; `url` led there."""
        if url.tls:
            base = f"https://{node._replace(port=TLS_PORT)}"
            return cls(base, url.user, url.password, ca_file)
        return cls(f"http://{node._replace(port=PORT)}", url.user, url.password)

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
                f"the management API at {self.base} does not know stream consumers; enable "
                "rabbitmq_stream_management on the broker",
                ExitCode.NOT_SUPPORTED,
            )
        if error.code == 404:
            return CommandError(
                f"{self.base} has no such virtual host, or is not the management API (usually port "
                f"{PORT})",
                ExitCode.VIRTUAL_HOST,
            )
        return CommandError(
            f"the management API at {self.base} answered {_status(error.code)}",
            ExitCode.SERVER,
        )

    def answer(self, ask: Callable[[Management], T]) -> T:
        """What `ask` makes of the API's answers. Blocks; raises CommandError where they are not
        those of the management API."""
        try:
            return ask(self)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CommandError(
                f"what answers at {self.base} is not the management API", ExitCode.CONNECTION
            ) from error

    def cluster(self) -> str | None:
        """The name of the cluster it belongs to."""
        name = self.get("overview")["cluster_name"]
        return None if name is None else str(name)

    def sees_everything(self) -> bool:
        """Whether the user may see the connections of others too."""
        tags = self.get("whoami")["tags"]
        return any(tag in tags for tag in ("administrator", "monitoring"))

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
        `connection`, and the `process` that it told ("" where it told none, and None where the
        connection is too young to be known); needs the plugin rabbitmq_stream_management.
        """
        name = quote(vhost, safe="")
        told = {
            it["name"]: dict(it.get("client_properties", {}))
            for it in self.get(f"stream/connections/{name}")
        }
        consumers = []
        for it in self.get(f"stream/consumers/{name}"):
            client = told.get(dict(it["connection_details"]).get("name"))
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


async def management_of(
    environment: Environment, url: str, named: str | None, ca_file: str | Path | None = None
) -> Management:
    """The API of the broker that `environment` is connected to by `url`: at `named`, or beside it.

    Raises CommandError where it is not there, or is that of another broker.
    """
    from anyio import to_thread

    server = await environment.server_info()
    product, ours = server.properties.get("product"), server.properties.get("cluster_name")
    if named is None and product != BROKER:
        raise CommandError(
            f"no management API at {server.address} (what answers there is the {product})",
            ExitCode.CONNECTION,
        )
    ca_file = ca_file or settings().given("tls_ca")
    api = (
        Management.beside(StreamUrl.parse(url), server.address, ca_file)
        if named is None
        else replace(Management.parse(named), ca_file=ca_file)
    )
    with doing(f"asking the management API at {api.base}"):
        theirs = await to_thread.run_sync(api.answer, Management.cluster, abandon_on_cancel=True)
    if theirs is None or theirs != ours:
        raise CommandError(
            f"the management API at {api.base} belongs to the cluster {theirs!r}, and the broker "
            f"at {server.address} to {ours!r}; name the broker's own with --management URL",
            ExitCode.CONNECTION,
        )
    return api


def ask_for_list(url: str, named: str | None, ask: Callable[[Management, str], T]) -> T:
    """What `ask(api, virtual host)` answers, for a list that the stream protocol cannot give.

    An API that was named is asked without looking for the broker, which may not be reachable.
    """
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.parser.options import run_async

    async def beside() -> Management:
        async with connect(url) as environment:
            return await management_of(environment, url, None)

    try:
        api = Management.parse(named) if named else run_async(beside)
        vhost = StreamUrl.parse(url).virtual_host
        with doing(f"asking the management API at {api.base}"):
            found = api.answer(lambda it: ask(it, vhost))
    except CommandError as error:
        if error.exit_code is not ExitCode.CONNECTION:
            raise
        raise CommandError(
            f"{error}; the stream protocol cannot list streams, so give the API's address with "
            "--management URL, or ask for streams by name: flowstream streams stats NAME",
            ExitCode.CONNECTION,
        ) from error
    note(f"asked the management API at {api.base}")
    return found


def _reason(error: BaseException) -> str:
    """Why nothing came of it, in words of our own: those of the libraries quote addresses."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:g} s"
    if isinstance(error, socket.gaierror | UnicodeError):
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
