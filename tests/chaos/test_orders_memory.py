"""A slow batch handler stops the broker, not memory and not heartbeats.

CHAOS_MESSAGES and CHAOS_SECONDS make it longer: a million messages and a minute are meant.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import anyio
import pytest

from flowstream import Environment
from tests.chaos.orders import ROOT
from tests.chaos.waiting import HEARTBEAT, MAX_IN_FLIGHT, STREAM
from tests.cli.command import environment as variables

MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "200000"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "12"))
GROWTH = 8 << 20
"""Bytes that resident memory may grow from the third second on."""


def publish(url: str) -> None:
    async def send() -> None:
        async with Environment(url) as environment:
            await environment.create_stream(STREAM)
            async with environment.publisher(STREAM) as publisher:
                for _ in range(MESSAGES // 1000):
                    await publisher.send_many([bytes(100)] * 1000)
                await publisher.flush()

    anyio.run(send)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_a_slow_batch_handler_keeps_the_window_memory_and_heartbeats(url: str) -> None:
    publish(url)

    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.waiting", url, str(SECONDS)],
        cwd=ROOT,
        env=variables(None),
        capture_output=True,
        timeout=SECONDS + 60,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    settled = [memory for at, _, memory in seen["samples"] if at >= 3]
    growth = max(settled) - settled[0]
    print(
        f"highest in flight {seen['highest_in_flight']}, handled {seen['handled']}, resident "
        f"{settled[0] >> 20} MiB at second 3, grown by {growth >> 10} KiB in {SECONDS:g} s"
    )
    assert SECONDS > 3 * HEARTBEAT, "too short for heartbeats to be missed"
    assert seen["lost"] == []
    assert seen["error"] is None
    assert seen["max_in_flight"] == MAX_IN_FLIGHT
    assert MAX_IN_FLIGHT * 0.8 < seen["highest_in_flight"] <= MAX_IN_FLIGHT
    assert all(in_flight <= MAX_IN_FLIGHT for _, in_flight, _ in seen["samples"])
    assert 500 * (SECONDS - 4) <= seen["handled"] <= 500 * (SECONDS + 1)
    assert seen["handled"] + MAX_IN_FLIGHT < MESSAGES, "nothing was waiting"
    assert growth < GROWTH, seen["samples"]
    assert seen["committed"] == seen["handled_in_the_end"] - 1
