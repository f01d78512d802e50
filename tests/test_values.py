"""Values that users make refuse what they cannot be when they are made, all in the same way.

The error is a ConfigurationError in one line that names the parameter, shows the value (unless it
may be secret) and says what is allowed. Which values there are is found by introspection: whoever
adds one, or a parameter to one, is sent here.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import pytest

import flowstream
from flowstream import broker, client, connectors, testing
from flowstream.errors import ConfigurationError
from flowstream.texts import shown

NAN, INF = float("nan"), float("inf")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def function(*_: Any) -> None: ...


SECONDS = (0, -1, "5", None, True, NAN, INF, Unprintable())
SECONDS_OR_NONE = tuple(it for it in SECONDS if it is not None)
FROM_1 = (0, -1, "3", 1.5, None, True, NAN, Unprintable())
FLAG = ("yes", "no", 0, 1, None, Unprintable())
NAME = ("", 5, "x" * 256, b"orders", "a\nb", "\ud800", None, Unprintable())
NAME_OR_NONE = tuple(it for it in NAME if it is not None)
FUNCTION = ("id", 5, None, Unprintable())
FUNCTION_OR_NONE = ("id", 5, Unprintable())
OBJECT_OR_NONE: tuple[Any, ...] = ("text", 0, 5, False, [], Unprintable())
OBJECT = (*OBJECT_OR_NONE, None)
PATH = (5, b"ca.pem", False, Unprintable())
SECRET = (5, None, b"s3cret", "nul\0")
CHUNKS = (0, 40_000, "10", None, True)

Wrong = dict[str, tuple[Any, ...]]
MADE: dict[str, tuple[Callable[..., Any], dict[str, Any], Wrong]] = {
    "flowstream.Backoff": (
        flowstream.Backoff, {},
        {
            "initial": (-1, "1", None, NAN, INF), "factor": (0.5, "2", None, NAN, INF),
            "maximum": (-1, "30", None, NAN, INF), "jitter": (-0.1, 1.1, "0.2", None, True),
        },
    ),
    "flowstream.Retry": (
        flowstream.Retry, {},
        {"attempts": FROM_1, "backoff": OBJECT},
    ),
    "flowstream.RateLimit": (
        flowstream.RateLimit, {"messages": 10},
        {
            "messages": (-1, "10", NAN, INF, True), "interval": (0, -1, "1", None, NAN),
            "bytes": (-1, "10", NAN, INF, True),
        },
    ),
    "flowstream.DeadLetter": (
        flowstream.DeadLetter, {"stream": "dead"},
        {
            "stream": NAME, "max_ratio": (-0.1, 1.1, "0.5", True, NAN),
            "max_consecutive": (0, -1, "3", 1.5, True), "exactly_once": FLAG,
            "reference": NAME_OR_NONE,
        },
    ),
    "flowstream.Halt": (flowstream.Halt, {}, {}),
    "flowstream.Drop": (flowstream.Drop, {}, {}),
    "flowstream.Filter": (
        flowstream.Filter, {"values": ("eu",), "match": function},
        {
            "values": ("eu", (), ["eu"], None, (5,), (None,), ("\ud800",), ("x" * 40_000,)),
            "match": FUNCTION, "unfiltered": FLAG,
        },
    ),
    "flowstream.StreamProducer": (
        flowstream.StreamProducer, {"stream": "orders"},
        {
            "stream": NAME, "reference": NAME_OR_NONE,
            "offset": ("newest", -1, 1.5, None, True, Unprintable()),
            "credit": (0, 1, 40_000, "10", None, True), "filter": OBJECT_OR_NONE,
            "on_truncated": ("ignore", None, True, Unprintable()),
        },
    ),
    "flowstream.SuperStreamProducer": (
        flowstream.SuperStreamProducer, {"super_stream": "orders"},
        {
            "super_stream": NAME, "reference": NAME_OR_NONE, "offset": ("newest", -1, None),
            "credit": (0, 1, "10", None), "filter": OBJECT_OR_NONE, "single_active": FLAG,
            "on_truncated": ("ignore", None),
        },
    ),
    "flowstream.StreamSink": (
        flowstream.StreamSink, {"stream": "priced"},
        {
            "stream": NAME, "key": ("", 5, Unprintable()), "routing": ("random", 5, True),
            "encode": FUNCTION, "amqp": FLAG, "filter_value": FUNCTION_OR_NONE,
            "max_unconfirmed": FROM_1, "exactly_once": FLAG, "reference": NAME_OR_NONE,
        },
    ),
    "flowstream.IterableProducer": (
        flowstream.IterableProducer, {"iterable": []},
        {
            "iterable": (5, None, "text", b"bytes", Unprintable()), "stream": NAME,
            "slice_size": FROM_1, "threaded": FLAG,
        },
    ),
    "flowstream.client.AutoTracking": (
        client.AutoTracking, {}, {"messages": FROM_1, "interval": SECONDS},
    ),
    "flowstream.client.CreditOnArrival": (client.CreditOnArrival, {}, {"initial": CHUNKS}),
    "flowstream.client.CreditWhenDone": (client.CreditWhenDone, {}, {"initial": CHUNKS}),
    "flowstream.client.ExternalCredentials": (client.ExternalCredentials, {}, {}),
    "flowstream.client.PlainCredentials": (
        client.PlainCredentials, {"user": "me", "password": "s3cret"},
        {"user": SECRET, "password": SECRET},
    ),
    "flowstream.client.Token": (
        client.Token, {"value": "s3cret", "expires_in": 60},
        {"value": SECRET, "expires_in": SECONDS},
    ),
    "flowstream.client.TokenCredentials": (
        client.TokenCredentials, {"fetch": function},
        {"fetch": FUNCTION, "user": SECRET, "renew_at": (0, 1, -1, 2, "0.5", None, True, NAN)},
    ),
    "flowstream.client.Tls": (
        client.Tls, {},
        {
            "ca": PATH, "certificate": PATH, "key": PATH, "key_password": (5, b"s3cret"),
            "server_name": NAME_OR_NONE, "verify": FLAG,
        },
    ),
    "flowstream.client.StreamUrl": (
        client.StreamUrl, {"host": "localhost", "port": 5552},
        {
            "host": (5, "", None), "port": (0, 65_536, "5552", None, True), "tls": FLAG,
            "user": SECRET, "password": SECRET, "virtual_host": (5, "", None),
            "others": (None, "other:5552", []),
        },
    ),
    "flowstream.Environment": (
        client.Environment, {},
        {
            "url": (5, None, "", [], "amqp://localhost"), "tls": OBJECT_OR_NONE,
            "credentials": ("me:s3cret", 5, False), "telemetry": OBJECT_OR_NONE,
            "name": NAME, "address_resolver": FUNCTION_OR_NONE,
            "heartbeat": (-1, "60", 1.5, None, True), "frame_max": (1, -1, "1MB", None, True),
            "connect_timeout": SECONDS, "request_timeout": SECONDS, "close_timeout": SECONDS,
            "backoff": (0, False, 1.0, "1", flowstream.Backoff(0), Unprintable()),
            "recovery_timeout": SECONDS_OR_NONE, "missing_timeout": SECONDS,
            "per_connection": (*FROM_1, 257), "node_attempts": FROM_1,
        },
    ),
    "flowstream.testing.Crash": (testing.Crash, {}, {}),
    "flowstream.testing.Pause": (
        testing.Pause, {"seconds": 1}, {"seconds": (-1, "2", None, NAN, INF, True)},
    ),
    "flowstream.testing.Disconnect": (
        testing.Disconnect, {}, {"seconds": (-1, "2", None, NAN, INF, True)},
    ),
    "flowstream.broker.Limits": (
        broker.Limits, {},
        dict.fromkeys(inspect.signature(broker.Limits).parameters, (-1, "1", None, True)),
    ),
}  # fmt: skip
ELSEWHERE = {
    "flowstream.Pipeline": "tests/pipeline/test_declaration.py: every option",
    "flowstream.Tracing": "tests/test_tracing.py",
    "flowstream.Telemetry": "takes observers, which are known by what they do",
    "flowstream.client.ConsumerOptions": "client/behaviour/test_wrong_input.py: every option",
    "flowstream.client.PublisherOptions": "client/behaviour/test_wrong_input.py: every option",
    "flowstream.OffsetSpec": "read from the wire too: checked where it is given, see below",
    "flowstream.client.Address": "read from the wire too: checked where it is given, see below",
    "flowstream.testing.PipelineTester": "below",
    "flowstream.testing.MemoryEnvironment": "below",
    "flowstream.testing.CallerAcknowledger": "takes an acknowledger of the user's",
    "flowstream.testing.VirtualLoop": "an event loop",
}
GIVEN = {  # made by flowstream, for users to read
    "flowstream": {
        *("Batch", "Failure", "Message", "Reason", "RunResult", "RunningPipeline", "Slice"),
    },
    "flowstream.connectors": {"DoneRanges", "Published"},
    "flowstream.client": {
        *("LagProbe", "OffsetKind", "StreamBacklog"),
        *("Compression", "Consumer", "Delivery", "Publisher", "ServerInfo", "State"),
        *("StreamMessage", "StreamNodes", "StreamStatistics", "SuperStreamConsumer"),
        *("SuperStreamPublisher", "UrlParts"),
        # AMQP 1.0: what they hold is checked when it is encoded
        *("AmqpMessage", "Array", "Described", "Header", "Properties", "Symbol", "Timestamp"),
    },
    "flowstream.testing": {
        *("Crashed", "DeadLettered", "HandledBatch", "MemoryStream", "Outcome", "RunReport"),
        *("MemoryConsumer", "MemoryDelivery", "MemoryLagProbe", "MemoryPublisher"),
        *("MemorySuperStreamConsumer", "MemorySuperStreamPublisher", "StillBusy"),
    },
}
BASES = {  # for users to derive from
    "flowstream": {"Acknowledger", "Intake", "FlowstreamError", "Producer"},
    "flowstream.client": {"Credentials", "CreditStrategy"},
    "flowstream.connectors": {
        *("StreamDelivery", "StreamEnvironment", "StreamLag", "StreamReader", "StreamWriter"),
        *("KeepsRecord", "SuperStreamReader", "SuperStreamWriter", "SqlSink"),
    },
    "flowstream.testing": {"Marker"},
}
HIDDEN = {"user", "password", "value", "key_password", "credentials", "url"}
"""Parameters whose values no error shows: they may be, or contain, a password."""
CASES = [
    pytest.param(name, parameter, id=f"{name.partition('.')[2]}({parameter})")
    for name, (_, _, wrong) in MADE.items()
    for parameter in wrong
]


def public() -> dict[str, type]:
    """Every class of the rooms that users make values of, by the first name it is found under."""
    found: dict[str, type] = {}
    seen: set[type] = set()
    for room in (flowstream, client, connectors, testing):
        for name in room.__all__:
            value = getattr(room, name)
            if isinstance(value, type) and value not in seen:
                seen.add(value)
                found[f"{room.__name__}.{name}"] = value
    return found


def is_schema(kind: type) -> bool:
    """Whether all that it takes are options: tests/test_every_option.py finds them by itself."""
    if hasattr(inspect.getattr_static(kind, "__init__"), "__schema__"):
        return True
    if not dataclasses.is_dataclass(kind):
        return False
    hints = typing.get_type_hints(kind, include_extras=True)
    return all(
        typing.get_origin(hints[field.name]) is Annotated for field in dataclasses.fields(kind)
    )


def test_every_value_is_here() -> None:
    known = {*MADE, *ELSEWHERE}
    for kinds in (GIVEN, BASES):
        known |= {f"{room}.{name}" for room, names in kinds.items() for name in names}
    known |= {name for name, kind in public().items() if is_schema(kind)}
    assert {*public()} == {name for name in known if not name.startswith("flowstream.broker.")}


@pytest.mark.parametrize("name", MADE)
def test_every_parameter_is_here(name: str) -> None:
    make, right, wrong = MADE[name]
    make(**right)
    assert {*wrong} == {*inspect.signature(make).parameters}


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_wrong_values_are_refused(name: str, parameter: str) -> None:
    make, right, wrong = MADE[name]
    for value in wrong[parameter]:
        with pytest.raises(ConfigurationError) as caught:
            make(**right | {parameter: value})
        said = str(caught.value)
        assert len(said.splitlines()) == 1
        assert parameter in said
        assert "s3cret" not in said
        shapes = [value, *value] if isinstance(value, tuple) else [value]
        assert parameter in HIDDEN or any(shown(each)[:30] in said for each in shapes)


# -- where values are given that also come from the wire


@pytest.mark.parametrize("value", [-1, "5", None, 1.5, True])
def test_an_offset_made_by_hand(value: Any) -> None:
    for make in (client.OffsetSpec.offset, client.OffsetSpec.timestamp):
        with pytest.raises(ConfigurationError, match="OffsetSpec > value="):
            flowstream.StreamProducer("orders", offset=make(value))


def test_an_offset_of_no_kind() -> None:
    with pytest.raises(ConfigurationError, match="OffsetSpec > kind='first'"):
        flowstream.StreamProducer("orders", offset=client.OffsetSpec("first"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"environment": "memory"}, "PipelineTester > environment='memory'"),
        ({"producer": "orders"}, "PipelineTester > producer='orders'"),
        ({"lifespan": "open"}, "PipelineTester > lifespan='open'"),
        ({"patience": "30"}, "PipelineTester > patience='30'"),
        ({"patience": 0}, "PipelineTester > patience=0"),
    ],
)
def test_a_tester(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        testing.PipelineTester(
            flowstream.Pipeline("shop", flowstream.IterableProducer([])), **options
        )


def test_a_tester_of_something_else() -> None:
    with pytest.raises(ConfigurationError, match="PipelineTester > pipeline='shop'"):
        testing.PipelineTester("shop")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="MemoryEnvironment > chunk_size=0"):
        testing.MemoryEnvironment(chunk_size=0)
