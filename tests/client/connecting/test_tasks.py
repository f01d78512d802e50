"""Background tasks: shielded from their host's cancellation, ended by their owner, never leaked."""

from __future__ import annotations

import anyio
import pytest

from flowstream.client.connecting.tasks import TaskOwner
from flowstream.signals import Signal

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]


async def test_leaving_ends_all_tasks() -> None:
    ended = []

    async def forever(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    async with TaskOwner() as owner:
        tasks = [owner.spawn(forever, name, name=name) for name in "ab"]
        await anyio.wait_all_tasks_blocked()
        assert owner.names == ["a", "b"]
        tasks[0].cancel()
        await tasks[0].wait()
        assert tasks[0].ended
        assert owner.names == ["b"]
    assert ended == ["a", "b"]
    assert len(owner) == 0
    with pytest.raises(RuntimeError, match="has ended"):
        owner.spawn(forever, "c", name="c")


async def test_a_cancelled_host_can_still_use_them() -> None:
    """What must happen at the end of a cancelled block happens: goodbyes, flushes."""
    asked = anyio.Event()
    answered = anyio.Event()

    async def serve() -> None:
        await asked.wait()
        answered.set()

    with anyio.CancelScope() as scope:
        async with TaskOwner() as owner:
            owner.spawn(serve, name="server")
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True), anyio.fail_after(5):
                    asked.set()
                    await answered.wait()
    assert scope.cancelled_caught


async def test_the_hosts_own_error_leaves_unwrapped() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with TaskOwner() as owner:
            owner.spawn(anyio.sleep_forever, name="sleeper")
            raise ZeroDivisionError


async def test_a_defect_in_a_task_ends_the_host() -> None:
    async def broken() -> None:
        raise KeyError("defect")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with TaskOwner() as owner:
            owner.spawn(broken, name="broken")
            await anyio.sleep_forever()
    assert caught.group_contains(KeyError)


@pytest.mark.anyio
@pytest.mark.both_backends
async def test_a_signal_wakes_everybody_who_waits() -> None:
    signal = Signal()
    signal.notify()
    woken = []

    async def wait(name: str) -> None:
        await signal.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "a")
        group.start_soon(wait, "b")
        await anyio.wait_all_tasks_blocked()
        signal.notify()
    assert sorted(woken) == ["a", "b"]
