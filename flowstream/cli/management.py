"""RabbitMQ's management HTTP API: what the stream protocol has no command for.

Only standard-library HTTP, in a worker thread. Errors name the address without its password.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.output import why

DEFAULT_PORT = 15672
PAGE = 500
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Management:
    """An address of the API with its credentials, such as http://guest:guest@localhost:15672."""

    base: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Management({self.base!r}, user={self.user!r})"

    @classmethod
    def parse(cls, url: str) -> Management:
        """Raises `CommandError` where `url` is no http address with a host."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CommandError(
                "--management wants an address such as http://guest:guest@localhost:15672",
                ExitCode.USAGE,
            )
        host = parts.netloc.rpartition("@")[2]
        base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        return cls(base, unquote(parts.username or "guest"), unquote(parts.password or "guest"))

    @classmethod
    def beside(cls, broker_url: str) -> Management:
        """Where the API of the broker at `broker_url` is when nobody moved it."""
        parts = urlsplit(broker_url)
        return cls(
            f"http://{parts.hostname or 'localhost'}:{DEFAULT_PORT}",
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
        )

    def get(self, path: str) -> Any:
        """The JSON at `/api/` + `path`. Blocks: call it in a thread."""
        return self._ask(path)[0]

    def date(self) -> str | None:
        """The API's clock, as its Date header has it. Blocks: call it in a thread."""
        return self._ask("whoami")[1]

    def _ask(self, path: str) -> tuple[Any, str | None]:
        """(JSON, Date header)."""
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - parse() lets only http and https through
            f"{self.base}/api/{path}", headers={"authorization": f"Basic {credentials}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return json.load(answer), answer.headers.get("date")
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, ValueError) as error:
            reason = why(getattr(error, "reason", error))
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
            f"the management API at {self.base} answered {error.code} {error.reason}",
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
