"""The management API of the broker that a command is connected to.

Where no address is configured, it is expected on the host of the stream connection. It is used only
if its cluster is that connection's, because one host may have several brokers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from anyio import to_thread

from flowstream.cli.configuration.settings import settings
from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.management import Management
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note
from flowstream.cli.output.progress import doing
from flowstream.client import Environment, StreamUrl

T = TypeVar("T")

BROKER = "RabbitMQ"
"""The product name of a broker that has this API."""


async def management_of(
    environment: Environment, url: str, named: str | None, ca_file: str | Path | None = None
) -> Management:
    """The API of the broker that `environment` is connected to, at `named` or beside the broker.

    Raises CommandError if no API answers there, or if it is that of another broker.
    """
    server = await environment.server_info()
    product, ours = server.properties.get("product"), server.properties.get("cluster_name")
    if named is None and product != BROKER:
        raise CommandError(
            f"there is no management API at {server.address}: the broker is {product}",
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
            f"the management API at {api.base} belongs to the cluster {theirs!r}, but the broker "
            f"at {server.address} to {ours!r}; give the address of the broker's API with "
            "--management URL",
            ExitCode.CONNECTION,
        )
    return api


def ask_for_list(url: str, named: str | None, ask: Callable[[Management, str], T]) -> T:
    """The result of `ask(api, virtual host)`: a list that the stream protocol cannot give.

    If `named` gives the API, the broker is not connected to: it may be unreachable.
    """

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
            f"{error}; the stream protocol cannot list streams, so give the address of the API "
            "with --management URL, or name the streams: flowstream streams stats NAME",
            ExitCode.CONNECTION,
        ) from error
    note(f"asked the management API at {api.base}")
    return found
