"""Bodies that tests of the client publish, and what is asked of a scripted broker about them."""

from __future__ import annotations

from typing import Any

import anyio

from flowstream.client.consuming.tracking import KEPT_SUFFIX
from flowstream.protocol import StoreOffset
from tests.client.scripted import Cluster, Node

TEN = [b"%d" % number for number in range(10)]


def numbers(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def chunks(count: int, size: int = 10) -> list[list[bytes]]:
    return [numbers(size, size * i) for i in range(count)]


async def read(consumer: Any, messages: int) -> list[bytes]:
    """So many bodies, or fewer when nothing comes for a (virtual) minute."""
    bodies: list[bytes] = []
    with anyio.move_on_after(60):
        while len(bodies) < messages:
            delivery = await anext(consumer)
            assert [int(body) for body in delivery.bodies] == list(delivery.offsets)
            bodies += delivery.bodies
    return bodies


def stores(node: Node) -> list[int]:
    """What was stored, all of it under the consumer's own name: nothing that is kept for good."""
    stored = node.received(StoreOffset)
    assert not [command for command in stored if command.reference.endswith(KEPT_SUFFIX)]
    return [command.offset for command in stored]


def stored(cluster: Cluster, stream: str = "s") -> list[bytes]:
    return [entry[4:] for chunk in cluster.streams[stream].chunks for entry in chunk[2]]
