"""A slow handler over streams of 1-byte and of 8 MiB messages: memory stays inside a bound.

What a pipeline with a StreamProducer holds at most, whatever the stream has waiting, is the sum of

    the window     max_in_flight_bytes (one message where that is less), and BOOKKEEPING for each of
                   max_in_flight messages
    the transport  `credit` chunks that are under way or wait, and COPIES of the one that is being
                   received, checked and cut into messages at the moment
    ALLOCATOR      what Python and malloc keep for themselves

A chunk is what the broker made of what was published at once; the largest one that came counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from flowstream import Environment
from flowstream.broker import Limits
from flowstream.errors import MessageTooLarge
from flowstream.testing import broker_in_thread
from tests.brokers.running import Broker
from tests.chaos.orders import ROOT, place_of_its_own
from tests.cli.command import environment as variables

STREAM = "sized"
MIB = 1 << 20
LARGE = 8 * MIB
FRAME_MAX = 16 * MIB
BOOKKEEPING = 1 << 10
COPIES = 4
"""Of a chunk on its way in: the buffer that a connection keeps, the copy that is cut, bodies."""
ALLOCATOR = 8 * MIB


@dataclass(frozen=True)
class Case:
    """`count` messages of `size` bytes, the pipeline's limits, and what may be in flight."""

    size: int
    count: int
    handle: int
    delay: float
    in_flight: int
    max_in_flight: int = 10_000
    max_in_flight_bytes: int = 64 * MIB
    credit: int = 10


CASES = {
    "1 byte, messages": Case(1, 100_000, 300, 0.002, 1000, max_in_flight=1000),
    "1 byte, bytes": Case(1, 100_000, 300, 0.002, 700, max_in_flight_bytes=700),
    "8 MiB, three": Case(LARGE, 24, 6, 0.05, 3, max_in_flight_bytes=30 * MIB),
    "8 MiB, less than one": Case(LARGE, 24, 6, 0.05, 1, max_in_flight_bytes=MIB),
    "8 MiB, little credit": Case(LARGE, 24, 6, 0.05, 1, max_in_flight_bytes=MIB, credit=2),
}


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_slow_handler_keeps_memory_inside_the_bound(broker: Broker, case: Case) -> None:
    with place_for_large_frames(broker) as (url, opening):
        anyio.run(publish, url, case, opening)
        seen = consume(url, case)

    window = case.in_flight * case.size
    transport = (case.credit + COPIES) * seen["chunk"]
    bound = window + case.in_flight * BOOKKEEPING + transport + ALLOCATOR
    print(
        f"{broker.name}: {seen['highest_in_flight']} messages, {seen['highest_in_flight_bytes']} "
        f"bytes in flight at most; chunks of {seen['chunk']} bytes, {seen['buffered']} waited at "
        f"most; memory grew by {seen['grown'] / MIB:.1f} MiB, {bound / MIB:.1f} allowed"
    )
    assert seen["error"] is None
    assert seen["unsettled"] == 0
    assert seen["highest_in_flight"] == case.in_flight
    assert seen["highest_in_flight_bytes"] == window
    assert seen["buffered"] <= case.credit * seen["chunk"]
    assert window <= seen["grown"] <= bound
    assert seen["handled"] + case.credit * seen["records"] < case.count, "nothing was waiting"


@pytest.mark.anyio
async def test_what_a_frame_cannot_hold_is_refused_with_the_remedy(url: str) -> None:
    async with Environment(url, frame_max=FRAME_MAX) as environment:
        await environment.create_stream(STREAM)
        async with environment.publisher(STREAM) as publisher:
            with pytest.raises(MessageTooLarge, match=r"raise the broker's stream\.frame_max and"):
                await publisher.publish(bytes(LARGE))
            await publisher.publish(b"small")


@contextmanager
def place_for_large_frames(broker: Broker) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """A place of the test's own, and what its connections for large messages are opened inside."""
    if broker.management is None:
        with broker_in_thread(limits=Limits(frame_max=FRAME_MAX)) as embedded:
            yield embedded.url, nullcontext()
    else:
        with place_of_its_own(broker) as url:
            yield url, frames_up_to(broker, FRAME_MAX)


@contextmanager
def frames_up_to(broker: Broker, frame_max: int) -> Iterator[None]:
    """Connections that are opened inside may agree on this frame_max.

    RabbitMQ reads `stream.frame_max` when it starts, into options that its listener hands to each
    new connection (rabbit_stream_sup): those are changed, and changed back.
    """
    change = (
        "[ranch:set_protocol_options(Ref, Options#{{frame_max := {}}}) || "
        "{{Ref, #{{port := {}, protocol_options := Options}}}} <- maps:to_list(ranch:info())]."
    )
    before = int(broker.ctl("eval", "application:get_env(rabbitmq_stream, frame_max, 1048576)."))
    assert broker.ctl("eval", change.format(frame_max, broker.port)).strip() == "[ok]"
    try:
        yield
    finally:
        broker.ctl("eval", change.format(before, broker.port))


async def publish(url: str, case: Case, opening: AbstractContextManager[None]) -> None:
    """So that small messages share chunks, and a large one is a chunk of its own."""
    async with AsyncExitStack() as stack:
        with opening:
            environment = await stack.enter_async_context(Environment(url, frame_max=FRAME_MAX))
            await environment.create_stream(STREAM)
            publisher = await stack.enter_async_context(environment.publisher(STREAM))
        many = 1 if case.size == LARGE else 1000
        for _ in range(case.count // many):
            await publisher.publish_many([b"x" * case.size] * many)


def consume(url: str, case: Case) -> Any:
    # glibc raises this threshold to the size of the largest block that was freed, and keeps smaller
    # ones on its heap. The hole that a body leaves there is a few bytes too small for a chunk, so
    # one message more or less would be measured, by chance.
    limits = (case.max_in_flight, case.max_in_flight_bytes, case.credit)
    handling = (case.in_flight, case.handle, case.delay)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.sized", url, STREAM, *map(str, (*limits, *handling))],
        cwd=ROOT,
        env=variables(None, {"MALLOC_MMAP_THRESHOLD_": str(MIB)}),
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
