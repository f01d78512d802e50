"""The loop that keeps publishers and consumers attached: when it tries, waits and gives up."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.backoff import Backoff
from flowstream.client import State
from flowstream.client.connecting.recovery import Recovery, StateCell, repeated, through_losses
from flowstream.client.connecting.settings import Settings
from flowstream.errors import (
    AccessRefused,
    AuthenticationFailed,
    CommitNotVerified,
    ConfigurationError,
    ConnectionClosed,
    ConnectionFailed,
    FlowstreamError,
    NotSupported,
    RequestTimeout,
    StreamDoesNotExist,
    StreamNotAvailable,
)
from flowstream.telemetry import Telemetry
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


class Attached:
    """Counts; `errors` are raised by the attempts, one after the other, then they succeed."""

    def __init__(self, *errors: FlowstreamError, **settings: Any) -> None:
        self.errors = list(errors)
        self.times: list[float] = []
        self.detached = 0
        self.gave_up: list[FlowstreamError] = []
        self.state = StateCell("publisher", "s", Telemetry())
        self.loop = Recovery(
            self.state,
            Settings(**settings),
            attach=self.attach,
            detach=self.detach,
            gave_up=self.gave_up.append,
        )

    async def attach(self) -> None:
        self.times.append(anyio.current_time())
        await anyio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)

    async def detach(self) -> None:
        self.detached += 1
        await anyio.lowlevel.checkpoint()


async def test_it_attaches_again_at_once_after_a_long_time() -> None:
    it = Attached()
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        await it.state.wait(State.OPEN)
        await anyio.sleep(100)
        it.loop.lose("cut")
        it.loop.lose("a second reason does not count")
        await it.state.wait(State.RECOVERING)
        await it.state.wait(State.OPEN)
        assert it.times[1] - it.times[0] == 100
        assert (it.detached, it.loop.recoveries) == (1, 1)
        group.cancel_scope.cancel()
    assert it.detached == 2


async def test_what_is_lost_again_and_again_is_tried_slower_and_slower() -> None:
    it = Attached(backoff=Backoff(1, maximum=60, jitter=0.2))
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        for _ in range(8):
            await it.state.wait(State.OPEN)
            it.loop.lose("flapping")
            await it.state.wait(State.RECOVERING)
        group.cancel_scope.cancel()
    gaps = [b - a for a, b in zip(it.times, it.times[1:], strict=False)]
    assert gaps[-1] > 20
    assert all(gap <= 60 * 1.2 for gap in gaps)


async def test_a_loss_while_attaching_counts() -> None:
    it = Attached()

    async def attach() -> None:
        it.times.append(anyio.current_time())
        if len(it.times) == 1:
            it.loop.lose("in the middle")

    it.loop._attach = attach
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        await it.state.wait(State.RECOVERING)
        await it.state.wait(State.OPEN)
        assert len(it.times) == 2
        group.cancel_scope.cancel()


async def test_a_renewal_is_no_loss() -> None:
    attached = Attached()
    async with anyio.create_task_group() as group:
        await attached.loop.renew()  # it does not run yet
        group.start_soon(attached.loop.run)
        await attached.state.wait(State.OPEN)
        await anyio.sleep(1)
        before = anyio.current_time()
        await attached.loop.renew()
        assert anyio.current_time() == before
        assert (len(attached.times), attached.detached) == (2, 1)
        assert (attached.loop.recoveries, attached.state.value) == (0, State.OPEN)
        group.cancel_scope.cancel()
    await attached.loop.renew()  # it does not run any more
    assert len(attached.times) == 2


async def test_a_renewal_that_fails_is_a_loss() -> None:
    attached = Attached()
    async with anyio.create_task_group() as group:
        group.start_soon(attached.loop.run)
        await attached.state.wait(State.OPEN)
        attached.errors = [ConnectionFailed("no"), ConnectionFailed("still not")]
        await attached.loop.renew()
        assert attached.state.value is State.RECOVERING
        await attached.state.wait(State.OPEN)
        assert len(attached.times) == 4
        group.cancel_scope.cancel()


async def test_a_renewal_ends_with_the_loop() -> None:
    attached = Attached()
    async with anyio.create_task_group() as group:
        group.start_soon(attached.loop.run)
        await attached.state.wait(State.OPEN)
        group.start_soon(attached.loop.renew)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    "error",
    [
        StreamDoesNotExist(),
        ConnectionFailed(),
        AccessRefused(),
        NotSupported(),
        ConfigurationError(),
    ],
)
async def test_the_first_attempt_fails_at_once(error: FlowstreamError) -> None:
    it = Attached(error)
    await it.loop.run()
    assert (it.loop.error, it.gave_up, it.state.value) == (error, [error], State.CLOSED)
    assert len(it.times) == 1
    assert it.detached >= 1


@pytest.mark.parametrize(
    "error", [ConnectionClosed("cut"), RequestTimeout(), ConnectionFailed("refused", lost=True)]
)
async def test_a_broker_that_had_answered_is_waited_for_at_the_first_attempt(
    error: FlowstreamError,
) -> None:
    it = Attached(error, *(ConnectionFailed("elsewhere, too") for _ in range(20)))
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        await it.state.wait(State.RECOVERING)
        await it.state.wait(State.OPEN)
        assert (len(it.times), it.loop.recoveries, it.gave_up) == (22, 1, [])
        group.cancel_scope.cancel()


async def test_a_broker_that_stays_away_is_given_up_in_time_at_the_first_attempt() -> None:
    it = Attached(*(ConnectionClosed("cut") for _ in range(1000)), recovery_timeout=60)
    await it.loop.run()
    assert isinstance(it.loop.error, ConnectionClosed)
    assert 60 <= it.times[-1] - it.times[0] < 70


async def test_a_request_is_repeated_while_the_broker_is_away() -> None:
    answers: list[FlowstreamError] = [
        StreamNotAvailable(), ConnectionClosed("cut"), ConnectionFailed("refused"), not_stored(),
    ]  # fmt: skip

    async def request() -> str:
        if answers:
            raise answers.pop(0)
        return "answer"

    assert await through_losses(request) == "answer"


@pytest.mark.parametrize(
    "error", [ConnectionFailed("wrong address"), CommitNotVerified("refused"), NotSupported()]
)
async def test_a_request_that_no_loss_made_fail_is_not_repeated(error: FlowstreamError) -> None:
    async def request() -> None:
        raise error

    before = anyio.current_time()
    with pytest.raises(type(error)):
        await through_losses(request)
    assert anyio.current_time() == before


async def test_a_request_is_repeated_for_as_long_as_the_options_say() -> None:
    async def request() -> None:
        raise ConnectionClosed("cut")

    before = anyio.current_time()
    with pytest.raises(ConnectionClosed):
        await repeated(request, Settings(recovery_timeout=60))
    assert 60 <= anyio.current_time() - before < 70


def not_stored() -> CommitNotVerified:
    error = CommitNotVerified("not stored")
    error.__cause__ = ConnectionClosed("cut")
    return error


async def test_the_first_attempt_waits_for_a_leader_though() -> None:
    it = Attached(StreamNotAvailable(), StreamNotAvailable())
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        await it.state.wait(State.OPEN)
        group.cancel_scope.cancel()
    it = Attached(*(StreamNotAvailable() for _ in range(100)))
    await it.loop.run()
    assert isinstance(it.loop.error, StreamNotAvailable)
    assert it.times[-1] - it.times[0] < 20


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (ConnectionFailed, 300, 310),
        (StreamNotAvailable, 300, 310),
        (StreamDoesNotExist, 30, 40),
        (AuthenticationFailed, 30, 40),
        (NotSupported, 0, 0),
    ],
)
async def test_recovery_gives_up_in_time(
    error: type[FlowstreamError], least: float, most: float
) -> None:
    it = Attached(recovery_timeout=300, missing_timeout=30)
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        await it.state.wait(State.OPEN)
        await anyio.sleep(50)
        it.errors = [error() for _ in range(1000)]
        start = anyio.current_time()
        it.loop.lose("cut")
        await it.state.wait(State.CLOSED)
        assert least <= anyio.current_time() - start <= most
    assert isinstance(it.loop.error, error)


@pytest.mark.medium
async def test_without_a_timeout_recovery_never_gives_up() -> None:
    it = Attached()
    async with anyio.create_task_group() as group:
        group.start_soon(it.loop.run)
        await it.state.wait(State.OPEN)
        it.errors = [ConnectionFailed() for _ in range(2000)]
        it.loop.lose("cut")
        await it.state.wait(State.RECOVERING)
        await it.state.wait(State.OPEN)
        assert it.times[-1] - it.times[0] > 3600
        group.cancel_scope.cancel()
