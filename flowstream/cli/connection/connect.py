"""How commands reach the broker: its address with TLS, SASL and limits as they are configured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowstream.cli.configuration.settings import settings
from flowstream.cli.connection.nearby import mention, nearby
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing
from flowstream.client import DEFAULT_URL, Environment, ExternalCredentials, StreamUrl, Tls

if TYPE_CHECKING:
    from flowstream.telemetry import Telemetry

LIMITS = ("heartbeat", "frame_max", "connect_timeout", "request_timeout")


@dataclass(frozen=True, slots=True)
class Connection:
    """An address, and the options of every connection to it."""

    url: str = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> str:
        """HOST:PORT of the nodes that are asked first."""
        return ", ".join(map(str, StreamUrl.parse(self.url).addresses))

    def environment(
        self, *, name: str = "flowstream", telemetry: Telemetry | None = None
    ) -> Environment:
        """An environment of the client, to be entered."""
        return Environment(self.url, name=name, telemetry=telemetry, **self.options)

    @asynccontextmanager
    async def opened(self, *, name: str = "flowstream") -> AsyncIterator[Environment]:
        """An environment that is connected, for a command that waits for the broker's answers."""
        with doing(f"waiting for the broker at {self.address}"):
            async with self.environment(name=name) as environment:
                yield environment


def connection(url: str | None = None) -> Connection:
    """What is configured, by the command line too; `url` goes before that.

    Raises ConfigurationError or CommandError for options that do not fit each other.
    """
    found = nearby()
    if found is not None and url == found.url:
        mention(found)
        return local(url)
    configured = settings()
    if url is None:
        url = str(configured.given("url") or DEFAULT_URL)
    values = {key: configured.given(key) for key in configured.origins if "." not in key}
    options = {key: values[key] for key in LIMITS if key in values}
    tls = {key.removeprefix("tls_"): value for key, value in values.items() if key[:4] == "tls_"}
    if StreamUrl.parse(url).tls:
        options["tls"] = Tls(ca_file=tls.pop("ca", None), **tls)
    elif tls:
        raise CommandError(
            f"tls_{next(iter(tls))} is set, and {StreamUrl.parse(url)} is not an address for TLS; "
            "write rabbitmq-stream+tls://",
            ExitCode.DECLARATION,
        )
    if values.get("sasl") == "EXTERNAL":
        options["credentials"] = ExternalCredentials()
    return Connection(url, options)


def local(url: str) -> Connection:
    """The embedded broker at `url`: with the limits that are configured, and neither TLS nor
    another login, which are for the broker that is used otherwise."""
    configured = settings()
    limits = {key: configured.given(key) for key in LIMITS if key in configured.origins}
    return Connection(url, limits)


def connect(url: str) -> AbstractAsyncContextManager[Environment]:
    """An environment at `url`, connected to as it is configured."""
    return connection(url).opened()
