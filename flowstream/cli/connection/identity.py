"""Which broker is which: whether a run and a command use the same streams."""

from __future__ import annotations

from flowstream.broker import PRODUCT
from flowstream.client import Environment, StreamUrl


async def identity_of(environment: Environment, url: str) -> str:
    """The cluster and the virtual host of an environment; empty if the broker has no name.

    Two different texts are two brokers. Clusters may have the same name, so the same text may be
    two brokers as well. Embedded brokers are named by the address that they advertise, which does
    not depend on who connects.
    """
    server = await environment.server_info()
    cluster = server.properties.get("cluster_name")
    if not cluster:
        return ""
    if server.properties.get("product") == PRODUCT:
        cluster = f"{cluster} at {server.advertised}"
    return f"{cluster}, virtual host {StreamUrl.parse(url).virtual_host}"
