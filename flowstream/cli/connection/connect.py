"""How commands reach the broker: the configured address, TLS, credentials and limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from flowstream.cli.configuration.options import CONNECTION, TLS
from flowstream.cli.configuration.settings import settings
from flowstream.cli.connection.embedded import broker_of_folder, note_broker_of_folder
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing
from flowstream.client import DEFAULT_URL, Environment, ExternalCredentials, StreamUrl, Tls
from flowstream.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Connection:
    """An address, with the options of every connection to it."""

    url: str = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> str:
        """HOST:PORT of the nodes that are tried first."""
        return ", ".join(map(str, StreamUrl.parse(self.url).addresses))

    def environment(
        self, *, name: str = "flowstream", telemetry: Telemetry | None = None
    ) -> Environment:
        """An environment of the client, which is not connected yet."""
        return Environment(self.url, name=name, telemetry=telemetry, **self.options)

    @asynccontextmanager
    async def opened(self, *, name: str = "flowstream") -> AsyncIterator[Environment]:
        """A connected environment, for a command that waits for answers of the broker."""
        with doing(f"waiting for the broker at {self.address}"):
            async with self.environment(name=name) as environment:
                yield environment


def connection(url: str | None = None) -> Connection:
    """The configured connection, to `url` if that is given.

    Raises ConfigurationError or CommandError for options that contradict each other.
    """
    found = broker_of_folder()
    if found is not None and url == found.url:
        note_broker_of_folder(found)
        return local(url)
    configured = settings()
    if url is None:
        url = str(configured.given("url") or DEFAULT_URL)
    values = {key: configured.given(key) for key in configured.origins if "." not in key}
    options = {key: values[key] for key in CONNECTION if key in values}
    tls = {key.removeprefix(TLS): value for key, value in values.items() if key.startswith(TLS)}
    if StreamUrl.parse(url).tls:
        options["tls"] = Tls(**tls)
    elif tls:
        raise CommandError(
            f"tls_{next(iter(tls))} is set, and {StreamUrl.parse(url)} is not an address for TLS; "
            "begin the address with rabbitmq-stream+tls://",
            ExitCode.DECLARATION,
        )
    if values.get("sasl") == "EXTERNAL":
        options["credentials"] = ExternalCredentials()
    return Connection(url, options)


def local(url: str) -> Connection:
    """The connection to the embedded broker at `url`, with the configured limits.

    Configured TLS and credentials are for another broker, and are not used.
    """
    configured = settings()
    limits = {key: configured.given(key) for key in CONNECTION if key in configured.origins}
    return Connection(url, limits)


def connect(url: str) -> AbstractAsyncContextManager[Environment]:
    """A connected environment at `url`, with the configured options."""
    return connection(url).opened()
