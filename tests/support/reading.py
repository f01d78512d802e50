"""What the tests of connectors ask of a broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio

from flowstream import Environment

PATIENCE = 15.0
"""Seconds; only a broken test waits that long."""


def numbers(count: int, first: int = 0) -> list[bytes]:
    """`count` bodies: {"n": first}, ..."""
    return [json.dumps({"n": n}).encode() for n in range(first, first + count)]


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


async def contents(environment: Environment, stream: str) -> list[tuple[int, int, bytes]]:
    """(offset, timestamp, body) of every message in the stream, in order."""
    found: list[tuple[int, int, bytes]] = []
    last = await environment.last_offset(stream)
    if last is None:
        return found
    with anyio.fail_after(PATIENCE):
        async with environment.consumer(stream, offset="first") as consumer:
            async for delivery in consumer:
                found += [
                    (offset, delivery.timestamp, body)
                    for offset, body in zip(delivery.offsets, delivery.bodies, strict=True)
                ]
                if delivery.offsets[-1] >= last:
                    break
    return found
