"""When a reader is warned that retention is about to overtake it."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from flowstream.client.consuming.retention import Distance, Headroom
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
