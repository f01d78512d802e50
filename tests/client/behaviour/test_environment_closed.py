"""An environment that is closed under who uses it, not open, closed, or opened on another loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import anyio
import pytest

from flowstream.client import Environment, State
from flowstream.errors import (
    ConfigurationError,
    ConnectionClosed,
    EnvironmentClosed,
    FlowstreamError,
    PublishFailed,
)
from flowstream.protocol import PeerProperties
from flowstream.testing import broker_in_thread
from tests.client.conftest import Connect
from tests.client.scripted import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]

PATIENCE = 15.0
ARGUMENTS: dict[str, Any] = {
    "name": "s", "stream": "s", "super_stream": "s", "reference": "r", "offset": 0,
    "routing_key": "k",
}  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Any:
    with broker_in_thread() as running:
        yield running.url


Call = Callable[[Environment], Awaitable[Any]]


def called(name: str) -> Call:
    """A call of a coroutine method, with something for each parameter that it needs."""
    parameters = list(inspect.signature(getattr(Environment, name)).parameters.values())[1:]
    needed = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    return lambda env: getattr(env, name)(*(ARGUMENTS[each] for each in needed))


def entered(method: str, **options: Any) -> Call:
    """The way into a publisher or consumer."""
    return lambda env: getattr(env, method)("s", **options).__aenter__()


def calls() -> dict[str, Call]:
    """Every public coroutine method, and the way into every publisher and consumer."""
    methods = [name for name, _ in inspect.getmembers(Environment, inspect.iscoroutinefunction)]
    found = {name: called(name) for name in methods if not name.startswith("_")}
    found["wait_for"] = lambda env: env.wait_for(State.RECOVERING)
    for name in ("publisher", "consumer", "super_stream_publisher", "super_stream_consumer"):
        found[name] = entered(name)
    found["single"] = entered("consumer", single_active=True, reference="r")
    return found


CALLS = calls()


async def refused(call: Call, env: Environment) -> Exception:
    with anyio.fail_after(PATIENCE), pytest.raises(FlowstreamError) as caught:
        await call(env)
    return caught.value


@pytest.mark.parametrize("name", CALLS)
async def test_one_that_is_not_open_is_refused_by_name(name: str) -> None:
    env = Environment("rabbitmq-stream://nowhere", name="shop")
    error = await refused(CALLS[name], env)
    assert isinstance(error, ConfigurationError)
    assert 'environment "shop" is not open: use it inside `async with' in str(error)


async def test_one_that_was_closed_is_refused_by_name(url: str) -> None:
    async with Environment(url, name="shop") as env:
        pass
    for call in CALLS.values():
        error = await refused(call, env)
        assert isinstance(error, EnvironmentClosed)
        assert 'environment "shop" was closed by the task' in str(error)
    with pytest.raises(EnvironmentClosed, match="open a new one"):
        async with env:
            pass
    assert await env.wait_for(State.CLOSED) is State.CLOSED


async def test_one_of_another_loop_is_refused_by_name(url: str, anyio_backend: str) -> None:
    errors: dict[str, Exception] = {}

    async def elsewhere(env: Environment) -> None:
        for name, call in CALLS.items():
            errors[name] = await refused(call, env)

    async with Environment(url, name="shop") as env:
        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere, env, backend=anyio_backend))
        assert await env.stream_exists("s") is False
    assert errors.keys() == CALLS.keys()
    for error in errors.values():
        assert isinstance(error, ConfigurationError)
        assert 'environment "shop" was opened on another event loop' in str(error)


async def test_who_was_opened_on_another_loop_is_not_used_here(
    url: str, anyio_backend: str
) -> None:
    """Its publishers and consumers refuse whatever could wait for that loop."""
    errors: list[Exception] = []

    async def elsewhere(call: Call, env: Environment) -> None:
        errors.append(await refused(call, env))

    async with Environment(url, name="shop") as env:
        await env.create_stream("closing", exist_ok=True)
        async with env.publisher("closing") as publisher, env.consumer("closing") as consumer:
            calls: list[Call] = [
                lambda _: publisher.publish(b"x"),
                lambda _: publisher.send(b"x"),
                lambda _: publisher.send_many([b"x"]),
                lambda _: publisher.flush(),
                lambda _: anext(consumer),
                lambda _: anext(consumer.messages()),
            ]
            for call in calls:
                there = partial(anyio.run, elsewhere, call, env, backend=anyio_backend)
                await anyio.to_thread.run_sync(there)
    assert len(errors) == len(calls)
    for error in errors:
        assert 'environment "shop" was opened on another event loop' in str(error)


async def test_one_is_opened_once(url: str) -> None:
    async with Environment(url, name="shop") as env:
        with pytest.raises(ConfigurationError, match='"shop" is open already'):
            async with env:
                pass
        assert env.state is State.OPEN


def test_one_is_made_outside_of_any_loop(url: str, anyio_backend: str) -> None:
    env = Environment(url)

    async def main() -> None:
        async with env:
            assert await env.stream_exists("s") is False

    anyio.run(main, backend=anyio_backend)


async def test_one_that_could_not_connect_may_be_opened_again(url: str) -> None:
    env = Environment("rabbitmq-stream://127.0.0.1:1", name="shop")
    for _ in range(2):
        with pytest.raises(FlowstreamError, match=r"127\.0\.0\.1:1"):
            async with env:
                pass


# -- closed under a user -------------------------------------------------------------------------


async def consuming(consumer: Any) -> None:
    async for _ in consumer:
        pass


async def use_until_closed(
    url: str, make: Callable[[Environment], Any], use: Callable[[Any], Awaitable[Any]],
    error: type[Exception] | None = None,
) -> Exception:  # fmt: skip
    """What the user is told when the environment's block ends (with `error`) before it does."""
    told: list[Exception] = []
    ready = anyio.Event()

    async def user(env: Environment) -> None:
        try:
            async with make(env) as opened:
                ready.set()
                await use(opened)
        except Exception as raised:
            told.append(raised)

    async def close(group: Any) -> None:
        async with Environment(url, name="shop") as env:
            await env.create_stream("closing", exist_ok=True)
            if not await env.stream_exists("parts-0"):
                await env.create_super_stream("parts", partitions=2)
            group.start_soon(user, env)
            await ready.wait()
            await anyio.wait_all_tasks_blocked()
            if error is not None:
                raise error

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            try:
                await close(group)
            except KeyError:
                assert error is KeyError
    (raised,) = told
    return raised


USERS: dict[str, Callable[[Environment], Any]] = {
    'consumer of "closing"': lambda env: env.consumer("closing"),
    'the consumer of "closing"': lambda env: env.consumer(
        "closing", reference="r", single_active=True
    ),
    'consumer of "parts-': lambda env: env.super_stream_consumer("parts"),
    'the consumer of "parts-': lambda env: env.super_stream_consumer(
        "parts", reference="r", single_active=True
    ),
}  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("who", USERS)
async def test_a_consumer_ends_with_the_error_that_says_who_closed_it(url: str, who: str) -> None:
    error = await use_until_closed(url, USERS[who], consuming)
    assert isinstance(error, EnvironmentClosed)
    assert 'environment "shop" was closed by the task' in str(error)
    assert who in str(error)


async def test_the_exception_that_closed_it_is_named(url: str) -> None:
    error = await use_until_closed(url, lambda env: env.consumer("closing"), consuming, KeyError)
    assert "because of KeyError while the consumer of" in str(error)


async def test_a_send_that_waits_fails(url: str) -> None:
    async def send(publisher: Any) -> None:
        while True:
            await publisher.send(b"x")
            await anyio.lowlevel.checkpoint()

    def make(env: Environment) -> Any:
        publisher = env.publisher("closing", max_unconfirmed=1)
        cast(Any, publisher)._session.want_write = lambda: None  # what is sent is never confirmed
        return publisher

    error = await use_until_closed(url, make, send)
    assert isinstance(error, EnvironmentClosed)
    assert 'while the publisher of "closing" was running' in str(error)


async def test_a_confirm_that_never_comes_says_why(url: str) -> None:
    def make(env: Environment) -> Any:
        publisher = env.publisher("closing")
        cast(Any, publisher)._session.want_write = lambda: None
        return publisher

    error = await use_until_closed(url, make, lambda publisher: publisher.publish(b"x"))
    assert isinstance(error, PublishFailed)
    assert 'environment "shop" was closed by the task' in str(error)
    assert isinstance(error.__cause__, EnvironmentClosed)


async def test_a_publisher_of_a_super_stream_fails(url: str) -> None:
    async def send(publisher: Any) -> None:
        await publisher._manager.state.wait(State.CLOSED)
        await publisher.publish(b"x", key="k")

    error = await use_until_closed(url, lambda env: env.super_stream_publisher("parts"), send)
    assert isinstance(error, EnvironmentClosed)


async def test_a_state_that_cannot_come_is_not_waited_for(url: str) -> None:
    async with Environment(url) as env:
        await env.create_stream("closing", exist_ok=True)
        async with env.consumer("closing") as consumer:
            pass
        with pytest.raises(ConnectionClosed, match='the consumer "closing" is closed'):
            await consumer.wait_for(State.OPEN)


async def test_users_that_ended_before_are_not_told(url: str) -> None:
    async with Environment(url) as env:
        await env.create_stream("closing", exist_ok=True)
        async with env.consumer("closing"), env.publisher("closing"):
            assert len(env._manager._users) == 2
        assert not env._manager._users
        with pytest.raises(FlowstreamError):
            async with env.consumer("no such stream"):
                pass
        assert not env._manager._users


async def test_a_handshake_that_it_ends_says_who_closed_it(
    cluster: Cluster, connect: Connect
) -> None:
    told: list[Exception] = []
    cluster.add("s")

    async def ask(env: Environment) -> None:
        with pytest.raises(FlowstreamError) as caught:
            await env.query_offset("r", "s")
        told.append(caught.value)

    async with anyio.create_task_group() as group, connect(cluster) as env:
        cluster.node.scripts[PeerProperties] = lambda *_: True  # it stays unanswered
        group.start_soon(ask, env)
        await anyio.wait_all_tasks_blocked()
    (error,) = told
    assert isinstance(error, EnvironmentClosed)
    assert "was closed by the task" in str(error)
