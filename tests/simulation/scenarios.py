"""What happens in a simulated run, and what is measured of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from flowstream.cli.workers.balance import UNEVEN_LASTS
from flowstream.testing.clock import run_virtual
from tests.simulation.group import Group
from tests.simulation.network import Network
from tests.simulation.workers import Fleet, Worker, fleet


@dataclass(frozen=True)
class Result:
    """What an event cost: a worker or a node that came, left or died."""

    partitions: int
    workers: int
    seconds: float
    """Until the last partition had its reader."""

    moves: int
    """Partitions that were given to a worker, some of them more than once."""

    repeated: int
    load: tuple[int, ...]
    """How many partitions each worker has afterwards, in order."""

    commands: int
    """Of the coordinator."""

    takeover: float = 0.0
    """Until the last partition that moved was handled by its new reader."""

    @property
    def most(self) -> float:
        """The load of the busiest worker, 1.0 for an even spread."""
        return max(self.load) * len(self.load) / self.partitions

    @property
    def idle(self) -> int:
        """Workers without a partition, of those that could have one."""
        able = min(self.partitions, len(self.load))
        return able - sum(load > 0 for load in self.load)


class Watch:
    """Measures what happens between its beginning and `result`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._group = fleet.group
        self._began = anyio.current_time()
        self._moves = self._group.counts.moves
        self._commands = self._group.counts.commands
        self._repeated = fleet.handled.repeated
        fleet.handled.mark()

    async def result(self, orphaned: list[str] | None = None) -> Result:
        fleet, counts = self._fleet, self._group.counts
        settled = await fleet.settle()
        while not set(orphaned or ()) <= fleet.handled.first.keys():
            await anyio.sleep(0.05)
        first = fleet.handled.first.values()
        return Result(
            self._group.partitions,
            len(fleet.workers),
            settled - self._began,
            counts.moves - self._moves,
            fleet.handled.repeated - self._repeated,
            tuple(fleet.load()),
            counts.commands - self._commands,
            max(first, default=self._began) - self._began,
        )


@asynccontextmanager
async def started(
    partitions: int,
    workers: int,
    network: Network,
    *,
    within: float = 0.0,
    rate: float = 20.0,
    led: bool = False,
) -> AsyncIterator[tuple[Fleet, Result]]:
    """A fleet whose workers start at random moments `within` so many seconds.

    If it is `led`, it has one parent, as `flowstream run --workers` has.
    """
    async with fleet(Group(partitions, network), rate=rate, led=led) as running:
        watch = Watch(running)
        moments = sorted(network.random.uniform(0, within) for _ in range(workers))
        for moment in moments:
            await anyio.sleep(max(0.0, moment - (anyio.current_time() - watch._began)))
            running.add()
        yield running, await watch.result()


async def kill(running: Fleet) -> Result:
    """The busiest worker is killed."""
    victim = max(running.workers, key=lambda worker: len(worker.partitions))
    orphaned, watch = victim.partitions, Watch(running)
    await running.kill(victim)
    return await watch.result(orphaned)


async def join(running: Fleet) -> Result:
    """One more worker."""
    watch = Watch(running)
    running.add()
    return await watch.result()


async def leave(running: Fleet) -> Result:
    """The worker that has been there longest drains."""
    watch = Watch(running)
    await running.drain(running.workers[0])
    return await watch.result()


async def roll(running: Fleet) -> Result:
    """Every worker is replaced: a new one joins, then the oldest drains.

    Workers whose consumers are in one order in all partitions have the same number of them, so the
    next one starts when this one has all its consumers, as a deployment waits for readiness.
    """
    watch = Watch(running)
    for worker in tuple(running.workers):
        new = running.add()
        while not new.connected:
            await anyio.sleep(0.05)
        await running.settle()
        await _drain(running, worker)
    return await watch.result()


async def _drain(running: Fleet, worker: Worker) -> None:
    await running.drain(worker)
    await running.settle()


async def lose_node(running: Fleet) -> Result:
    """A node of the broker dies, with the connections to it."""
    watch = Watch(running)
    running.group.node_down(0)
    await anyio.sleep(1)
    return await watch.result()


async def rebalance(running: Fleet) -> Result:
    """The parent sees that the load is uneven, and the workers subscribe again."""
    assert running.parent is not None
    watch, balance = Watch(running), running.parent.balance
    with anyio.move_on_after(2 * UNEVEN_LASTS + 5):
        while not balance.rebalances:
            await anyio.sleep(0.1)
    while balance.busy:
        await anyio.sleep(0.1)
    return await watch.result()


EVENTS: dict[str, Callable[[Fleet], Awaitable[Result]]] = {
    "kill": kill,
    "join": join,
    "leave": leave,
    "node": lose_node,
    "roll": roll,
    "rebalance": rebalance,
}


async def events(
    names: Sequence[str],
    partitions: int,
    workers: int,
    network: Network,
    within: float,
    rate: float,
    led: bool,
) -> dict[str, Result]:
    async with started(partitions, workers, network, within=within, rate=rate, led=led) as (
        running,
        begun,
    ):
        results = {"start": begun}
        for name in names:
            await anyio.sleep(7)  # commits have been made
            results[name] = await EVENTS[name](running)
        return results


def simulate(
    *names: str,
    partitions: int,
    workers: int,
    network: Network | None = None,
    within: float = 0.0,
    rate: float = 20.0,
    led: bool = False,
) -> dict[str, Result]:
    """Start a fleet, let the events happen one after the other; the result of each by its name."""
    return run_virtual(events, names, partitions, workers, network or Network(), within, rate, led)
