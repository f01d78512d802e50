"""Every broker gets the same odd requests; odd_requests and odd_frames have what each answers."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import anyio
import pytest

from flowstream.protocol import (
    Close,
    Command,
    CreditError,
    ExchangeCommandVersionsResponse,
    MetadataResponse,
    MetadataUpdate,
    OpenResponse,
    PublishConfirm,
    PublishError,
    QueryPublisherSequence,
    QueryPublisherSequenceResponse,
    Response,
    StreamStatsResponse,
    Tune,
    tag_of,
)
from flowstream.protocol.values import Key
from tests.broker.raw import Raw, logged_in
from tests.brokers.running import Broker
from tests.integration import odd_frames, odd_requests
from tests.integration.odd_requests import NOT_ASKED, Step

pytestmark = pytest.mark.anyio

PROBE = 0xFFFFFF
PATIENCE = 1.0
"""Seconds after which a broker that neither answers nor closes is said to be silent."""

CASES = [
    pytest.param(steps, id=f"{group}: {name}")
    for group, cases in (
        ("streams", odd_requests.STREAMS),
        ("publishers", odd_requests.PUBLISHERS),
        ("consumers", odd_requests.CONSUMERS),
        ("super streams", odd_requests.SUPER_STREAMS),
        ("frames", odd_frames.FRAMES),
    )
    for name, steps in cases.items()
]


@pytest.mark.parametrize("steps", CASES)
async def test_odd_requests(broker: Broker, stream_name: str, steps: list[Step]) -> None:
    """A probe is sent after every request: what comes before its answer is the request's."""
    async with logged_in(broker.url) as raw:
        for step in steps:
            expected = step.answers_of(broker.name)
            if expected == NOT_ASKED:
                return
            await raw.send(named(step.send, stream_name))
            probed = not ends(expected)
            if probed:
                await raw.send(QueryPublisherSequence(PROBE, "probe", "no such stream"))
            assert await answers(raw, expected, stream_name, probed=probed) == expected, step
            if ends(expected):
                return


def ends(expected: str) -> bool:
    return expected.endswith(("closed", "silence")) or expected.startswith("close ")


async def answers(raw: Raw, expected: str, stream_name: str, *, probed: bool) -> str:
    """What comes before the probe's answer; without a probe, as much as is expected."""
    said: list[str] = []
    count = len(expected.split("; ")) if expected else 0
    patience = PATIENCE if expected == "silence" else 15.0
    while probed or len(said) < count:
        with anyio.move_on_after(patience) as waiting:
            command = await raw.next()
        if waiting.cancelled_caught:
            said.append("silence")
            break
        if is_probe(command):
            break
        if not isinstance(command, PublishConfirm):  # they come when they come
            said.append("closed" if command is None else say(command, stream_name))
        if command is None:
            break
    return "; ".join(said)


def is_probe(command: Command | None) -> bool:
    return isinstance(command, QueryPublisherSequenceResponse) and command.correlation_id == PROBE


def named(send: Command | bytes, stream_name: str) -> Command | bytes:
    """The command with S replaced by the test's stream in every name that begins with it."""
    if not is_dataclass(send):
        return send
    changes: dict[str, Any] = {}
    for field in fields(send):
        value = getattr(send, field.name)
        if field.name in ("stream", "name", "super_stream"):
            changes[field.name] = _named(value, stream_name)
        elif field.name in ("streams", "partitions"):
            changes[field.name] = tuple(_named(each, stream_name) for each in value)
    return replace(send, **changes)


def _named(name: str, stream_name: str) -> str:
    return stream_name + name[1:] if name.startswith("S") else name


def say(command: Command, stream_name: str) -> str:
    """An answer in short: its name, its code, and what else it holds."""
    name = Key(tag_of(command) & 0x7FFF).name.lower()
    match command:
        case Close(code=code, reason=reason):
            return f"close {code} {reason}"
        case Tune(frame_max=frame_max, heartbeat=heartbeat):
            return f"tune {frame_max} {heartbeat}"
        case Response(code=code) | CreditError(code=code) | MetadataUpdate(code=code):
            return f"{name} {code}"
        case PublishError(errors=errors):
            codes = {code for _, code in errors} or {18}
            return f"{name} {codes.pop()}:{_list(each for each, _ in errors)}"
        case MetadataResponse(brokers=brokers, streams=streams):
            found = sorted(f"{it.name}={it.code}@{it.leader}" for it in streams)
            text = f"{name} {len(brokers)}:{_list(found)}"
        case ExchangeCommandVersionsResponse(code=code, commands=commands):
            versions = (f"{it.key}v{it.maximum}" if it.maximum > 1 else it.key for it in commands)
            text = f"{name} {code}:{_list(versions)}"
        case StreamStatsResponse(code=code, stats=stats):
            text = f"{name} {code}:{_list(f'{key}={stats[key]}' for key in sorted(stats))}"
        case OpenResponse(code=code, properties=properties):
            text = f"{name} {code}:{_list(sorted(properties))}"
        case _:
            text = f"{name} {_rest(command)}"
    return text.replace(stream_name, "S")


def _rest(command: Any) -> str:
    if hasattr(command, "streams"):
        return f"{command.code}:{_list(command.streams)}"
    if hasattr(command, "sequence"):
        return f"{command.code}: {command.sequence}"
    if hasattr(command, "offset"):
        return f"{command.code}: {getattr(command.offset, 'value', command.offset)}"
    return str(int(command.code))


def _list(items: Any) -> str:
    return "".join(f" {item}" for item in items)
