"""Wrong input is refused before anything is sent, by the option's name and with a remedy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream import Backoff, DeadLetter, StreamProducer, StreamSink
from flowstream.client import AutoTracking, Compression, Environment, StreamUrl, Tls
from flowstream.client import CreditOnArrival as OnArrival
from flowstream.client.connecting.credentials import Token, TokenCredentials
from flowstream.errors import ConfigurationError, ConnectionFailed
from flowstream.protocol import Address
from tests.client.conftest import Connect
from tests.client.scripted import Cluster

pytestmark = pytest.mark.anyio

LONG = "é" * 128
NAIVE = datetime(2024, 1, 1)
URL = "rabbitmq-stream://localhost:5552"


async def fetch() -> Token:
    raise AssertionError("it is not called")


class AsyncCall:
    async def __call__(self, stream: str) -> None:
        raise AssertionError("it is not called")


ENVIRONMENTS: list[tuple[dict[str, Any], str]] = [
    ({"url": 5}, r"url: expected a string such as rabbitmq-stream://"),
    ({"url": []}, r"url: expected at least one address"),
    ({"url": "amqp://localhost"}, r"the scheme must be rabbitmq-stream://"),
    ({"url": [URL, "rabbitmq-stream://localhost:5553/other"]}, r"have a different virtual_host"),
    ({"tls": Tls()}, r"tls=Tls\(.*\): it needs a rabbitmq-stream\+tls:// address, not "),
    ({"name": ""}, r"name='': expected a string of 1 to 255 bytes"),
    ({"address_resolver": "host"}, r"address_resolver='host': expected a function"),
    ({"heartbeat": 1.5}, r"heartbeat=1.5: expected a whole number from 0"),
    ({"heartbeat": -1}, r"heartbeat=-1: expected a whole number from 0"),
    ({"frame_max": 100}, r"frame_max=100: expected a whole number from 4096"),
    ({"frame_max": "1MB"}, r"frame_max='1MB': expected a whole number"),
    ({"connect_timeout": 0}, r"connect_timeout=0: expected a number of seconds, more than 0"),
    ({"request_timeout": "10"}, r"request_timeout='10': expected a number of seconds"),
    ({"close_timeout": -1}, r"close_timeout=-1: expected a number of seconds"),
    ({"recovery_timeout": 0}, r"recovery_timeout=0: expected a number of seconds"),
    ({"missing_timeout": None}, r"missing_timeout=None: expected a number of seconds"),
    ({"backoff": 1.0}, r"backoff=1.0: expected a Backoff"),
    ({"backoff": Backoff(0)}, r"backoff=Backoff\(initial=0.*takes a pause"),
    ({"backoff": Backoff(2, maximum=1)}, r"backoff=Backoff\(initial=2.*at most `maximum`"),
    ({"connect_timeout": float("inf")}, r"connect_timeout=inf: expected a number of seconds"),
    ({"request_timeout": float("nan")}, r"request_timeout=nan: expected a number of seconds"),
    ({"missing_timeout": 1e10}, r"missing_timeout=10000000000.0: expected a number of seconds"),
    ({"close_timeout": 10**400}, r"close_timeout=1000+…?: expected a number of seconds"),
    ({"node_attempts": 1 << 63}, r"node_attempts=9\d+: expected a whole number"),
    ({"per_connection": 257}, r"per_connection=257: expected a whole number from 1 to 256"),
    ({"node_attempts": 0}, r"node_attempts=0: expected a whole number of at least 1"),
]
VALUES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: Backoff(initial=-1),
        r"Backoff > initial=-1: expected a number of seconds, at least 0",
    ),
    (
        lambda: Backoff(factor=0.5),
        r"Backoff > factor=0.5: expected a number from 1 to 1000",
    ),
    (
        lambda: Backoff(factor=float("nan")),
        r"Backoff > factor=nan: expected a number from 1 to 1000",
    ),
    (
        lambda: Backoff(factor=float("inf")),
        r"Backoff > factor=inf: expected a number from 1 to 1000",
    ),
    (
        lambda: Backoff(maximum=float("inf")),
        r"Backoff > maximum=inf: expected a number of seconds, at least 0",
    ),
    (
        lambda: Token("t", float("nan")),
        r"Token > expires_in=nan: expected a number of seconds",
    ),
    (
        lambda: Token("s3cret", float("inf")),
        r"^Token > expires_in=inf: expected a number of seconds",
    ),
    (lambda: TokenCredentials(fetch, renew_at=float("nan")), r"renew_at=nan: expected"),
    (lambda: AutoTracking(messages=0), r"AutoTracking > messages=0: expected a whole number"),
    (lambda: AutoTracking(interval=0), r"AutoTracking > interval=0: expected a number of seconds"),
    (
        lambda: OnArrival(0),
        r"CreditOnArrival > initial=0: expected a whole number from 1 to 32767",
    ),
    (
        lambda: OnArrival(32768),
        r"CreditOnArrival > initial=32768: expected a whole number from 1 to 32767",
    ),
    (
        lambda: TokenCredentials(fetch, renew_at=2),
        r"TokenCredentials > renew_at=2: expected a number between 0 and 1",
    ),
    (lambda: Tls(key="k").context(), r"Tls > key='k': it needs certificate="),
    (lambda: Tls(ca=Path("/none")).context(), r"Tls > ca='/none': "),
    (lambda: StreamUrl.parse("rabbitmq-stream://h/a/b"), r"write a / in the virtual host as %2f"),
]
PUBLISHERS: list[tuple[dict[str, Any], str]] = [
    ({"stream": ""}, r"stream='': expected a string of 1 to 255 bytes"),
    ({"stream": 5}, r"stream=5: expected a string"),
    ({"reference": ""}, r"reference='': expected a string of 1 to 255 bytes"),
    ({"reference": LONG}, r"reference='é+…: expected a string of 1 to 255 bytes"),
    ({"max_unconfirmed": 0}, r"max_unconfirmed=0: expected a whole number of at least 1"),
    ({"max_unconfirmed": True}, r"max_unconfirmed=True: expected a whole number"),
    ({"max_unconfirmed_bytes": 0.5}, r"max_unconfirmed_bytes=0.5: expected a whole number"),
    ({"confirm_timeout": 0}, r"confirm_timeout=0: expected a number of seconds"),
    ({"sub_entry_size": 65536}, r"sub_entry_size=65536: expected a whole number from 0 to 65535"),
    (
        {"sub_entry_size": 5, "compression": "gzip"},
        r"compression='gzip': expected one of NONE, GZIP",
    ),
    ({"compression": Compression.GZIP}, r"compression=GZIP: it needs sub_entry_size="),
    (
        {"sub_entry_size": 5, "filter_value": lambda body: None},
        r"sub_entry_size=5: it cannot be used with filter_value=",
    ),
    ({"filter_value": "eu"}, r"filter_value='eu': expected a function"),
    ({"on_confirm": 1}, r"on_confirm=1: expected a function"),
    ({"on_error": 1}, r"on_error=1: expected a function"),
    ({"filter_value": fetch}, r"filter_value=.*fetch.*: expected a function, a plain def"),
    ({"on_confirm": fetch}, r"on_confirm=.*fetch.*: expected a function, a plain def"),
    ({"on_error": partial(fetch)}, r"on_error=.*fetch.*: expected a function, a plain def"),
]
CONSUMERS: list[tuple[dict[str, Any], str]] = [
    ({"stream": LONG}, r"stream='é+…: expected a string of 1 to 255 bytes"),
    ({"offset": "end"}, r"offset='end': an offset is 0 or more, or \"first\", \"last\", \"next\""),
    ({"offset": -1}, r"offset=-1: an offset is 0 or more"),
    ({"offset": timedelta(seconds=-1)}, r"offset=.*: a timedelta is an age and must not be neg"),
    ({"offset": NAIVE}, r"offset=.*: expected a datetime with a time zone"),
    ({"credit": 0}, r"credit=0: expected a whole number from 1 to 32767"),
    ({"credit": "10"}, r"credit='10': expected a whole number from 1 to 32767"),
    ({"reference": ""}, r"reference='': expected a string of 1 to 255 bytes"),
    ({"tracking": AutoTracking()}, r"tracking=AutoTracking\(.*\): it needs reference="),
    (
        {"tracking": "auto", "reference": "n"},
        r"tracking='auto': expected \"manual\" or AutoTracking",
    ),
    ({"filter_values": "eu", "match": bool}, r"filter_values='eu': expected a list of strings"),
    ({"filter_values": [1], "match": bool}, r"filter_values=\[1\]: expected a list of strings"),
    ({"filter_values": ["eu"]}, r"filter_values=\['eu'\]: it needs match="),
    ({"match_unfiltered": True}, r"match_unfiltered=True: it needs filter_values="),
    ({"match": "eu"}, r"match='eu': expected a function"),
    ({"match": fetch}, r"match=.*fetch.*: expected a function, a plain def"),
    ({"settled": AsyncCall()}, r"settled=.*AsyncCall.*: expected a function, a plain def"),
    ({"single_active": True}, r"single_active=True: it needs reference="),
    (
        {"on_active": 1, "reference": "n", "single_active": True},
        r"on_active=1: expected an async function",
    ),
    ({"on_inactive": print}, r"on_inactive=.*print>: it needs single_active=True"),
    ({"hand_over_timeout": 0}, r"hand_over_timeout=0: expected a number of seconds"),
]
SUPER_PUBLISHERS: list[tuple[dict[str, Any], str]] = [
    ({"super_stream": ""}, r"super_stream='': expected a string"),
    ({"routing": "round-robin"}, r"routing='round-robin': expected \"hash\" or \"key\""),
    ({"refresh": 0}, r"refresh=0: expected a number of seconds"),
    ({"key": "id"}, r"key='id': expected a function"),
    ({"key": fetch}, r"key=.*fetch.*: expected a function, a plain def"),
]
STREAMS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, r"name='': expected a string of 1 to 255 bytes"),
    ({"max_length_bytes": 0}, r"max_length_bytes=0: expected a whole number of at least 1"),
    ({"max_length_bytes": "1GB"}, r"max_length_bytes='1GB': expected a whole number"),
    ({"max_segment_size_bytes": -5}, r"max_segment_size_bytes=-5: expected a whole number"),
    ({"filter_size_bytes": 15}, r"filter_size_bytes=15: expected a whole number from 16 to 255"),
    ({"initial_cluster_size": 0}, r"initial_cluster_size=0: expected a whole number of at least 1"),
    (
        {"leader_locator": "random"},
        r"leader_locator='random': expected \"client-local\" or \"balanced\"",
    ),
    ({"max_age": timedelta(0)}, r"max_age=.*: expected a timedelta of at least a second"),
    ({"max_age": "2 hours"}, r"max_age='2 hours': expected a timedelta .* such as \"12h\""),
    ({"max_age": 3600}, r"max_age=3600: expected a timedelta"),
]
SENDS: list[tuple[Callable[[Any], Awaitable[None]], str]] = [
    (
        lambda p: p.send("text"),
        r"a message body must be bytes or an AmqpMessage, not str; encode it",
    ),
    (lambda p: p.send_many([b"a", None]), r"a message body must be bytes .* not NoneType"),
    (lambda p: p.send_many(b"ab"), r"bodies=b'ab': expected a list of messages; `send` and"),
    (lambda p: p.publish_many(None), r"bodies=None: expected a list of messages"),
    (lambda p: p.publish_many(iter([b"a"])), r"bodies=<.*iterator.*>: expected a list of messages"),
    (
        lambda p: p.send(b"a", publishing_id=-1),
        r"publishing_id=-1: expected a whole number of at least 0",
    ),
    (lambda p: p.send(b"a", publishing_id="1"), r"publishing_id='1': expected a whole number"),
    (lambda p: p.send(b"a", publishing_id=1 << 64), r"publishing_id=\d+: must fit into 64 bits"),
    (lambda p: p.send_many([b"a"], publishing_ids=[1, 2]), r"publishing_ids has 2 items for 1"),
    (lambda p: p.send(b"a", filter_value=5), r"filter_value=5: expected a string"),
    (
        lambda p: p.send(b"a", filter_value="x" * 32768),
        r"filter_value=.*string of 0 to 32767 bytes",
    ),
]


@pytest.mark.parametrize(("options", "text"), ENVIRONMENTS)
async def test_an_environment(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Environment(**{"url": URL} | options)


@pytest.mark.parametrize(("make", "text"), VALUES)
def test_values(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


@pytest.mark.parametrize(("options", "text"), PUBLISHERS)
async def test_a_publisher(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Environment(URL).publisher(**{"stream": "s"} | options)


@pytest.mark.parametrize(("options", "text"), CONSUMERS)
async def test_a_consumer(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Environment(URL).consumer(**{"stream": "s"} | options)
    if "stream" not in options:
        with pytest.raises(ConfigurationError, match=text):
            Environment(URL).super_stream_consumer("x", **options)


@pytest.mark.parametrize(("options", "text"), SUPER_PUBLISHERS)
async def test_a_publisher_of_a_super_stream(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Environment(URL).super_stream_publisher(**{"super_stream": "x"} | options)


@pytest.mark.parametrize(("options", "text"), STREAMS)
async def test_a_stream(options: dict[str, Any], text: str) -> None:
    environment = Environment(URL)
    for create in (environment.create_stream, environment.create_super_stream):
        with pytest.raises(ConfigurationError, match=text):
            await create(**{"name": "s"} | options)


@pytest.mark.parametrize(
    ("partitions", "text"),
    [
        (0, "partitions=0: expected a whole number from 1"),
        (True, "partitions=True: expected a whole number from 1"),
        (10**9, "partitions=1000000000: expected a whole number from 1 to"),
        (1.5, "partitions=1.5: expected a number of at least 1, or"),
        (None, "partitions=None: expected a number of at least 1, or"),
        ("eu", "partitions='eu': expected a number of at least 1, or"),
        (["a", "a"], "partitions=.*: expected at least one routing key"),
        ([], r"partitions=\[\]: expected at least one"),
        ([1, 2], "partitions=1: expected a string"),
        (["a", None], "partitions=None: expected a string"),
        (["\udc80"], "partitions='.udc80': expected a string without lone surrogates"),
        (["a\nb"], r"partition='x-a\\nb': expected a name without control characters"),
        (["e" * 232], "partition='x-e+…: expected a name of 1 to 233 bytes, this one has 234"),
    ],
)
async def test_partitions(partitions: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        await Environment(URL).create_super_stream("x", partitions=partitions)


NAMES = [
    ("", "expected a string of 1 to 255 bytes"),
    (None, "expected a string of 1 to 255 bytes"),
    (b"s", "expected a string of 1 to 255 bytes"),
    ("s" * 256, "expected a string of 1 to 255 bytes"),
    ("s\udc80", "without lone surrogates"),
    ("s\nt", "without control characters"),
    ("s\x7f", "without control characters"),
    ("s\x85", "without control characters"),
]
STREAM_NAMES = [
    *NAMES,
    (
        "s" * 234,
        "expected a name of 1 to 233 bytes, this one has 234; RabbitMQ cannot create a dir",
    ),
    ("\u00e9" * 117, "expected a name of 1 to 233 bytes, this one has 234"),
    (f"{URL}/user:secret@x", "this is an address"),
]


@pytest.mark.parametrize(("name", "text"), STREAM_NAMES)
async def test_a_name_that_no_stream_can_have_is_refused_before_anything_is_sent(
    name: Any, text: str, cluster: Cluster, connect: Connect
) -> None:
    async with connect(cluster) as env:
        sent = len(cluster.nodes[0].live("locating")[0].received)
        with pytest.raises(ConfigurationError, match=text):
            await env.create_stream(name)
        for use in (env.publisher, env.consumer, DeadLetter, StreamSink, StreamProducer):
            with pytest.raises(ConfigurationError, match=text) as caught:
                use(name)
            assert "secret" not in str(caught.value)
        assert len(cluster.nodes[0].live("locating")[0].received) == sent


CALLS: list[tuple[str, Callable[[Environment, Any], Awaitable[object]]]] = [
    ("name", lambda env, it: env.delete_stream(it)),
    ("name", lambda env, it: env.stream_exists(it)),
    ("name", lambda env, it: env.metadata(it)),
    ("name", lambda env, it: env.stream_stats(it)),
    ("stream", lambda env, it: env.last_offset(it)),
    ("stream", lambda env, it: env.resolve_offset(it, "first")),
    ("stream", lambda env, it: env.lag_probe(it).look(0)),
    ("stream", lambda env, it: env.query_offset("r", it)),
    ("reference", lambda env, it: env.query_offset(it, "s")),
    ("stream", lambda env, it: env.query_beginning("r", it)),
    ("reference", lambda env, it: env.store_beginning(it, "s")),
    ("stream", lambda env, it: env.store_offset("r", it, 1)),
    ("reference", lambda env, it: env.store_offset(it, "s", 1)),
    ("stream", lambda env, it: env.store_offset_verified("r", it, 1)),
    ("reference", lambda env, it: env.claim_reference(it, "s")),
    ("stream", lambda env, it: env.reference_claim("r", it)),
    ("reference", lambda env, it: env.forget_offset(it, "s")),
    ("name", lambda env, it: env.delete_super_stream(it)),
    ("super_stream", lambda env, it: env.partitions(it)),
    ("super_stream", lambda env, it: env.routing_of(it)),
    ("super_stream", lambda env, it: env.route("k", it)),
]


@pytest.mark.parametrize("name", [None, 5, b"s", Path("s"), ["s"], ""])
async def test_what_is_no_name_is_refused_by_the_argument(
    name: Any, cluster: Cluster, connect: Connect
) -> None:
    """Some raised an AttributeError, others a LocalProtocolError that named no argument."""
    async with connect(cluster) as env:
        sent = len(cluster.nodes[0].live("locating")[0].received)
        for argument, call in CALLS:
            with pytest.raises(ConfigurationError, match=f"^{argument}=.*: expected a string of"):
                await call(env, name)
        if name != "":
            with pytest.raises(ConfigurationError, match=r"^routing_key=.*: expected a string of"):
                await env.route(name, "x")
        assert len(cluster.nodes[0].live("locating")[0].received) == sent


@pytest.mark.parametrize(("name", "text"), NAMES)
async def test_a_reference_that_cannot_be_one(name: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        StreamProducer("s", reference="" if name is None else name)
    with pytest.raises(ConfigurationError, match=text):
        Environment(URL).publisher("s", reference="" if name is None else name)
    with pytest.raises(ConfigurationError, match=text):
        Environment(URL).consumer("s", reference="" if name is None else name)


async def test_the_longest_name_of_a_stream_depends_on_the_virtual_host(
    cluster: Cluster, connect: Connect
) -> None:
    """Its folder is named VIRTUAL-HOST_NAME_TIME, and has 255 bytes at most."""
    async with connect(cluster) as env:
        await env.create_stream("s" * 233)
    async with connect(cluster, "rabbitmq-stream://guest:guest@node0:5552/production") as env:
        await env.create_stream("s" * 224)
        with pytest.raises(ConfigurationError, match="1 to 224 bytes, this one has 225"):
            await env.create_stream("s" * 225)
        with pytest.raises(ConfigurationError, match="1 to 224 bytes, this one has 225"):
            await env.delete_stream("s" * 225)


@pytest.mark.parametrize(("send", "text"), SENDS)
async def test_a_message(
    cluster: Cluster, connect: Connect, send: Callable[[Any], Awaitable[None]], text: str
) -> None:
    log = cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        with pytest.raises(ConfigurationError, match=text):
            await send(publisher)
        assert publisher.unconfirmed == 0
    assert log.chunks == []


async def test_a_key(cluster: Cluster, connect: Connect) -> None:
    cluster.super_streams["x"] = ["x-0", "x-1"]
    async with connect(cluster) as env:
        async with env.super_stream_publisher("x", key=lambda body: body) as publisher:  # type: ignore[arg-type,return-value]
            with pytest.raises(ConfigurationError, match=r"key=b'a': expected a string"):
                await publisher.send(b"a")
            with pytest.raises(ConfigurationError, match=r"key=5: expected a string"):
                await publisher.send_many([b"a"], keys=[5])  # type: ignore[list-item]
        async with env.super_stream_publisher("x") as publisher:
            with pytest.raises(
                ConfigurationError, match=r"a message for a super stream needs key=, or"
            ):
                await publisher.send(b"a")
            with pytest.raises(ConfigurationError, match=r"keys has 1 items for 2 bodies"):
                await publisher.send_many([b"a", b"b"], keys=["a"])


class Strategy:
    """A credit strategy of an application, with a fault."""

    initial = 2

    def __init__(self, arrived: Callable[[], Any], done: Callable[[], Any]) -> None:
        self.arrived = arrived
        self.done = done


def fault() -> int:
    raise ZeroDivisionError("mine")


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (Strategy(fault, lambda: 1), "credit: .* raised ZeroDivisionError: mine"),
        (Strategy(lambda: 0, fault), "credit: .* raised ZeroDivisionError: mine"),
        (Strategy(lambda: -1, lambda: 1), "credit: .* returned -1: expected a whole number"),
        (Strategy(lambda: 0, lambda: None), "credit: .* returned None: expected a whole number"),
        (Strategy(lambda: 0, lambda: 1 << 20), "credit: .* returned 1048576: expected"),
    ],
)
async def test_a_faulty_credit_strategy_fails_its_consumer_only(
    strategy: Any, text: str, cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"1"], [b"2"], [b"3"])
    async with connect(cluster) as env:

        async def read() -> None:
            async with env.consumer("s", credit=strategy) as consumer:
                async for _ in consumer:
                    pass

        with anyio.fail_after(5), pytest.raises(ConfigurationError, match=text):
            await read()
        async with env.consumer("s") as other:
            assert (await anext(other)).bodies == [b"1"]


@pytest.mark.parametrize("error", [KeyError("node0"), ConfigurationError("mine")])
async def test_a_resolver_that_raises_is_a_node_that_cannot_be_reached(
    error: Exception, cluster: Cluster, connect: Connect
) -> None:
    def resolve(_: Address) -> Address:
        raise error

    cluster.add("s")
    async with connect(cluster, address_resolver=resolve) as env:
        with pytest.raises(
            ConnectionFailed, match=r"address_resolver raised .* for node node0:5552"
        ):
            async with env.publisher("s"):
                pass
        assert await env.stream_exists("s")


async def test_on_active_returns_where_to_begin(cluster: Cluster, connect: Connect) -> None:
    async def wrong(_: str) -> Any:
        return 5

    cluster.add("s")
    async with connect(cluster) as env:

        async def read() -> None:
            async with env.consumer(
                "s", reference="r", single_active=True, on_active=wrong
            ) as consumer:
                cluster.node.live("consuming")[0].promote(0, active=True)
                await anext(consumer)

        with anyio.fail_after(5), pytest.raises(ConfigurationError, match="on_active returned 5"):
            await read()
