"""A publisher or consumer is used inside its `async with` block, and has one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowstream.client import Environment
from flowstream.errors import ConfigurationError
from tests.client.conftest import Connect
from tests.client.scripted import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]

USES: list[tuple[Callable[[Environment], Any], Callable[[Any], Awaitable[Any]]]] = [
    (lambda env: env.publisher("invoices-0"), lambda it: it.send(b"x")),
    (lambda env: env.publisher("invoices-0"), lambda it: it.send(b"x", publishing_id=1)),
    (lambda env: env.publisher("invoices-0"), lambda it: it.send_many([b"x"])),
    (lambda env: env.publisher("invoices-0"), lambda it: it.publish(b"x")),
    (lambda env: env.publisher("invoices-0"), lambda it: it.publish_many([b"x"])),
    (lambda env: env.publisher("invoices-0"), lambda it: it.flush()),
    (lambda env: env.consumer("invoices-0"), lambda it: anext(it)),
    (lambda env: env.consumer("invoices-0"), lambda it: anext(it.messages())),
    (lambda env: env.consumer("invoices-0"), lambda it: it.subscribe_again()),
    (lambda env: env.super_stream_consumer("invoices"), lambda it: it.subscribe_again()),
    (lambda env: env.super_stream_publisher("invoices"), lambda it: it.publish(b"x", key="k")),
    (lambda env: env.super_stream_publisher("invoices"), lambda it: it.flush()),
    (lambda env: env.super_stream_consumer("invoices"), lambda it: anext(it)),
]


@pytest.mark.parametrize(("make", "use"), USES)
async def test_outside_of_its_block_it_is_refused_and_waits_for_nothing(
    make: Callable[[Environment], Any],
    use: Callable[[Any], Awaitable[Any]],
    invoices: Cluster,
    connect: Connect,
) -> None:
    async with connect(invoices) as env:
        with (
            anyio.fail_after(5),
            pytest.raises(ConfigurationError, match=r'invoices.*" is not open'),
        ):
            await use(make(env))


@pytest.mark.parametrize(
    "make",
    [
        lambda env: env.publisher("invoices-0"),
        lambda env: env.consumer("invoices-0"),
        lambda env: env.super_stream_publisher("invoices"),
        lambda env: env.super_stream_consumer("invoices"),
    ],
)
async def test_it_is_entered_once_and_works_on(
    make: Callable[[Environment], Any], invoices: Cluster, connect: Connect
) -> None:
    async with connect(invoices) as env:
        it = make(env)
        async with it:
            with pytest.raises(ConfigurationError, match="was entered before: make a new one"):
                await it.__aenter__()
            if hasattr(it, "flush"):
                await it.flush()
        with pytest.raises(ConfigurationError, match="was entered before: make a new one"):
            await it.__aenter__()
