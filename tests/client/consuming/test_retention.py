"""When a reader is warned that retention is about to overtake it."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from flowstream.client.consuming.retention import Distance, Headroom
from flowstream.protocol import StreamStats, Subscribe, simple_entry
from tests.client.bodies import chunks, numbers, read
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def test_a_reader_is_warned_once_before_and_once_when_it_is_overtaken() -> None:
    headroom = Headroom()
    assert headroom.looked(0, 100, 5000) is None
    assert headroom.looked(500, 700, 6000) is Distance.CLOSE
    assert headroom.looked(500, 800, 6000) is None
    assert headroom.looked(1000, 850, 6000) is Distance.BEHIND
    assert headroom.looked(1000, 5000, 6000) is Distance.FAR
    assert headroom.looked(5900, 6100, 6100) is None  # nothing is behind it


def _raises(stream: str) -> int:
    raise KeyError(stream)


@pytest.mark.anyio
async def test_the_connection_of_a_reader_is_not_asked(cluster: Cluster, connect: Connect) -> None:
    """The messages behind a gap wait for the answer, and there a broker is busy sending."""
    stream = cluster.add("s", *chunks(2))
    stream.next_offset += 1  # a stored offset
    stream.append([simple_entry(body) for body in numbers(10, 21)], 10, 1_000)
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 30) == [*numbers(20), *numbers(10, 21)]
    asked = {
        kind: [each for each in cluster.nodes[0].sessions if kind in map(type, each.received)]
        for kind in (Subscribe, StreamStats)
    }
    assert len(asked[Subscribe]) == len(asked[StreamStats]) == 1
    assert asked[Subscribe] != asked[StreamStats]


@pytest.mark.anyio
@pytest.mark.parametrize("after", [0.0, 4.0])
async def test_a_half_open_connection_beside_holds_no_messages_up(
    cluster: Cluster, connect: Connect, after: float
) -> None:
    """Also not if it hangs while the reader's retention is looked at, as every five seconds."""
    stream = cluster.add("s", *chunks(2))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 20) == numbers(20)
        (locator,) = cluster.nodes[0].live("locating")
        locator.mute = True
        await anyio.sleep(after)
        for number in range(21, 61, 2):  # behind each message is a stored offset
            stream.next_offset = number
            stream.append([simple_entry(b"%d" % number)], 1, 1_000)
            since = anyio.current_time()
            cluster.nodes[0].deliver("s")
            assert await read(consumer, 1) == numbers(1, number)
            assert anyio.current_time() - since < 1.0
            await anyio.sleep(0.1)


@pytest.mark.anyio
@pytest.mark.parametrize("settled", [_raises, lambda stream: "5", lambda stream: 1.5, lambda _: -2])
async def test_a_wrong_answer_about_what_is_settled_is_logged_once(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture, settled: Any
) -> None:
    cluster.add("s", *chunks(2))
    async with connect(cluster) as env, env.consumer("s", settled=settled) as consumer:
        assert await read(consumer, 10) == numbers(10)
        await anyio.sleep(60)
        assert await read(consumer, 10) == numbers(10, 10)
    (error,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert "settled= of the consumer of 's'" in error.getMessage()
    assert "expected an offset or None" in error.getMessage()
