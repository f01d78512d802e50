"""The sessions captured from RabbitMQ 4.3 are replayed and get the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flowstream.broker import Limits
from flowstream.protocol import (
    Chunk,
    Deliver,
    FrameReader,
    Heartbeat,
    MetadataResponse,
    OpenResponse,
    PeerPropertiesResponse,
    PublishConfirm,
    SaslHandshakeResponse,
    decode,
)
from flowstream.testing import broker_in_thread
from tests.brokers.running import Broker
from tests.protocol.capture import SESSIONS, VECTORS, Session

WAITS = {"heartbeats": [pytest.mark.medium]}
CASES = [pytest.param(run, id=run.__name__, marks=WAITS.get(run.__name__, ())) for run in SESSIONS]


def said(lines: list[str]) -> Iterator[Any]:
    """The server's commands in a captured session."""
    frames = FrameReader()
    for line in lines:
        mark, data = line.split(" ")
        if mark == "<":
            yield from map(decode, frames.feed(bytes.fromhex(data)))


def comparable(commands: Iterator[Any]) -> dict[str, list[Any]]:
    """Without what differs from run to run: times, addresses, where frames and chunks are cut."""
    answers: list[str] = []
    confirmed: list[tuple[int, int]] = []
    delivered: list[tuple[int, int, bytes]] = []
    for command in commands:
        match command:
            case Heartbeat():
                pass
            case PublishConfirm(publisher_id, ids):
                confirmed += ((publisher_id, each) for each in ids)
            case Deliver(subscription_id, data):
                chunk = Chunk(data)
                bodies = enumerate(chunk.bodies(), chunk.offset)
                delivered += ((subscription_id, offset, body) for offset, body in bodies)
            case PeerPropertiesResponse() | OpenResponse():
                answers.append(repr(replace(command, properties={})))
            case SaslHandshakeResponse():
                answers.append(repr(replace(command, mechanisms=())))
            case MetadataResponse(brokers=brokers, streams=streams):
                plain = replace(command, brokers={}, streams=())
                answers.append(f"{plain!r} {sorted(brokers)} {sorted(streams)}")
            case _:
                answers.append(repr(command))
    return {
        "answers": sorted(answers),
        "confirmed": sorted(confirmed),
        "delivered": sorted(delivered),
    }


@pytest.mark.medium
@pytest.mark.parametrize("run", CASES)
def test_the_same_answers_as_4_3(run: Callable[[Session], None]) -> None:
    captured = (VECTORS / "4.3" / f"{run.__name__}.txt").read_text().splitlines()
    with broker_in_thread(limits=Limits(refusal_delay=0)) as embedded:
        session = Session(Broker("embedded", (4, 3, 6), embedded.url))
        run(session)
    assert comparable(said(session.lines)) == comparable(said(captured))
