"""Odd requests before a connection is open, to every broker (see test_odd_requests).

Real brokers say what frames they take, so these tests have a group with those that change it.
"""

from __future__ import annotations

import pytest

from tests.broker.raw import connected
from tests.brokers.running import Broker
from tests.integration import odd_frames
from tests.integration.odd_requests import Step
from tests.integration.test_odd_requests import answers, ends, named

pytestmark = pytest.mark.anyio

EARLY = [pytest.param(steps, id=name) for name, steps in odd_frames.BEFORE_OPEN.items()]


@pytest.mark.parametrize("steps", EARLY)
async def test_odd_requests_before_open(
    broker: Broker, stream_name: str, steps: list[Step]
) -> None:
    async with connected(broker.url) as raw:
        for step in steps:
            expected = step.answers_of(broker.name)
            await raw.send(named(step.send, stream_name))
            assert await answers(raw, expected, stream_name, probed=False) == expected, step
            if ends(expected):
                return
