"""Workers that come and go, the messages that are published meanwhile, and what was handled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flowstream import Batch, Pipeline, RunningPipeline, SuperStreamProducer
from flowstream.cli.workers.balance import Balance
from flowstream.cli.workers.decisions import Member
from flowstream.cli.workers.worker import Turns
from flowstream.pipeline import Producer
from tests.simulation.group import GROUP, SUPER_STREAM, Group
from tests.simulation.member import WorkerEnvironment

SIZE = 200
TIMEOUT = 0.5
WORK = 0.02
LONGEST = 900.0
"""The batcher of the simulated pipeline: its size, its timeout, and the seconds of its handler.
LONGEST are the seconds in which the readers of all partitions must be found."""


class Source(SuperStreamProducer):
    """Without look-ups of the lag, which would be most of what is simulated."""

    backlog = Producer.backlog  # type: ignore[assignment]


@dataclass
class Handled:
    """Which offsets of which partitions were handled, and by whom last."""

    offsets: dict[str, list[int]] = field(default_factory=dict)
    repeated: int = 0
    first: dict[str, float] = field(default_factory=dict)
    """When each partition was first handled by another worker than the one before `mark`."""

    _owner: dict[str, object] = field(default_factory=dict)

    def note(self, worker: object, partition: str, offsets: Sequence[int]) -> None:
        counts = self.offsets.setdefault(partition, [])
        counts.extend([0] * (offsets[-1] + 1 - len(counts)))
        for offset in offsets:
            self.repeated += counts[offset] > 0
            counts[offset] += 1
        if self._owner.get(partition) is not worker:
            self._owner[partition] = worker
            self.first.setdefault(partition, anyio.current_time())

    def mark(self) -> None:
        """Begin to look who handles the partitions next."""
        self.first.clear()

    def missing(self, partition: str, end: int) -> int:
        """How many of the first `end` messages were not handled."""
        counts = self.offsets.get(partition, [])
        return end - sum(count > 0 for count in counts[:end])


class Worker:
    """A pipeline in a process of its own, as far as the others can see."""

    def __init__(
        self,
        group: Group,
        tasks: TaskGroup,
        handled: Handled,
        commit_interval: float,
        parent: Parent | None = None,
    ) -> None:
        self.environment = WorkerEnvironment(group, tasks)
        self.source = Source(SUPER_STREAM, single_active=True)
        self.pipeline = Pipeline(GROUP, self.source, commit_interval=commit_interval)
        self.ended = anyio.Event()
        self._group = group
        self._running: RunningPipeline | None = None
        self._scope = anyio.CancelScope()

        if parent is not None:
            parent.adopt(self, tasks)

        @self.pipeline.batcher(size=SIZE, batch_timeout=TIMEOUT, concurrency=2)
        async def handle(batch: Batch[bytes]) -> None:
            await anyio.sleep(WORK)
            if not self.environment.dead:
                for origin in batch.origins:
                    handled.note(self, origin.stream, origin.offsets)

    async def run(self) -> None:
        with self._scope:
            async with self.pipeline.start(environment=self.environment) as running:
                self._running = running
                await running.wait()
        self.ended.set()

    @property
    def gone(self) -> bool:
        return self.ended.is_set() or self.environment.dead

    @property
    def connected(self) -> bool:
        """Whether it has subscribed to every partition, and lost none."""
        consumer = self.environment.reads
        return (
            self.source.subscribed
            and consumer is not None
            and all(each.member or each.moves for each in consumer.consumers.values())
        )

    @property
    def partitions(self) -> list[str]:
        """Those that it reads now."""
        consumer = self.environment.reads
        return [] if consumer is None or self.environment.dead else consumer.active

    def drain(self) -> None:
        """Stop in order, as by SIGTERM."""
        if self._running is not None:
            self._running.stop()

    async def kill(self) -> None:
        """As by SIGKILL: nothing that it does from now on reaches anybody."""
        self.environment.die()
        self._scope.cancel()
        self.ended.set()
        consumer = self.environment.reads
        if consumer is not None:
            members = [each.member for each in consumer.consumers.values() if each.member]
            await anyio.sleep(self._group.network.detect)
            self._group.connections_closed(members)


class Parent:
    """The part of the parent of `flowstream run --workers` that decides who subscribes when."""

    def __init__(self, group: Group) -> None:
        self.balance = Balance(GROUP, group.network.random.random)
        self._turns: dict[Member, Turns] = {}
        self._workers: dict[Member, Worker] = {}

    def adopt(self, worker: Worker, tasks: TaskGroup) -> None:
        """Let the worker subscribe when it is its turn."""
        member = Member(len(self._workers) + 1, 1, anyio.current_time())
        self._workers[member] = worker
        turns = self._turns[member] = Turns(Wire(self, member), GROUP)
        worker.source.subscribe_after(turns.wait)
        tasks.start_soon(self._follow, turns, worker)

    def heard(self, member: Member, kind: str) -> None:
        if kind == "turn":
            self.balance.asked(member)
        else:
            self.balance.subscribed(member)
        self._act()

    async def look(self) -> None:
        """Look at the load every second, until cancelled."""
        while True:
            await anyio.sleep(1)
            for member in [it for it, worker in self._workers.items() if worker.gone]:
                del self._workers[member]
                self.balance.left(member)
            held = {it: frozenset(worker.partitions) for it, worker in self._workers.items()}
            calm = all(worker.connected for worker in self._workers.values())
            self.balance.looked(held, calm=calm, now=anyio.current_time())
            self._act()

    def _act(self) -> None:
        for member in self.balance.act(anyio.current_time()):
            self._turns[member].call()

    async def _follow(self, turns: Turns, worker: Worker) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(turns.follow, worker.source)
            await worker.ended.wait()
            group.cancel_scope.cancel()


@dataclass
class Wire:
    """What a worker sends to its parent."""

    parent: Parent
    member: Member

    async def send(self, message: dict[str, Any]) -> None:
        self.parent.heard(self.member, message["kind"])


class Fleet:
    """The workers of a group, and a publisher that fills its partitions."""

    def __init__(
        self, group: Group, tasks: TaskGroup, *, rate: float, commit_interval: float, led: bool
    ) -> None:
        self.group = group
        self.rate = rate
        self.handled = Handled()
        self.workers: list[Worker] = []
        self.parent = Parent(group) if led else None
        self._commit_interval = commit_interval
        self._tasks = tasks
        self._publishing = anyio.CancelScope()

    def add(self) -> Worker:
        worker = Worker(self.group, self._tasks, self.handled, self._commit_interval, self.parent)
        self.workers.append(worker)
        self._tasks.start_soon(worker.run)
        return worker

    async def drain(self, worker: Worker) -> None:
        worker.drain()
        await worker.ended.wait()
        self.workers.remove(worker)

    async def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        await worker.kill()

    def load(self) -> list[int]:
        """How many partitions each worker reads."""
        return sorted(len(worker.partitions) for worker in self.workers)

    @property
    def complete(self) -> bool:
        """Whether each partition is read by one worker."""
        return sum(self.load()) == self.group.partitions

    async def settle(self, quiet: float = 2.0) -> float:
        """Wait until all partitions are read and none has moved for `quiet` seconds.

        Returns when the last one moved.
        """
        moves, since = self.group.counts.moves, anyio.current_time()
        limit = since + LONGEST
        while since < limit:
            await anyio.sleep(0.05)
            now = anyio.current_time()
            if self.group.counts.moves != moves or not self.complete:
                moves, since = self.group.counts.moves, now
            elif now - since >= quiet:
                return since
        raise AssertionError(f"the partitions have no readers of their own: {self.load()}")

    async def publish(self) -> None:
        """Publish at the rate of each partition, each at moments of its own."""
        with self._publishing:
            async with anyio.create_task_group() as tasks:
                for partition in self.group.names:
                    tasks.start_soon(self._publish_to, partition)

    async def _publish_to(self, partition: str) -> None:
        size = max(1, round(self.rate / 2))
        pause = size / self.rate
        await anyio.sleep(self.group.network.random.uniform(0, pause))
        while True:
            self.group.memory.append(partition, [b"0"] * size)
            for worker in self.workers:
                consumer = worker.environment.reads
                if consumer is not None:
                    reader = consumer.consumers[partition].reader
                    if reader is not None:
                        consumer.arrived.notify()
            await anyio.sleep(pause)

    async def finish(self) -> int:
        """Stop publishing and wait for the rest; how many messages nobody handled."""
        self._publishing.cancel()
        missing = -1
        with anyio.move_on_after(60):
            while missing:
                await anyio.sleep(1)
                missing = sum(
                    self.handled.missing(name, self.group.memory.stream(name).next_offset)
                    for name in self.group.names
                )
        return missing


async def _look(parent: Parent, scope: anyio.CancelScope) -> None:
    with scope:
        await parent.look()


@asynccontextmanager
async def fleet(
    group: Group, *, rate: float = 20.0, commit_interval: float = 5.0, led: bool = False
) -> AsyncIterator[Fleet]:
    """Workers of the group; they are drained at the end. Nothing is lost, or it is an error."""
    async with anyio.create_task_group() as tasks:
        made = Fleet(group, tasks, rate=rate, commit_interval=commit_interval, led=led)
        tasks.start_soon(made.publish)
        looking = anyio.CancelScope()
        if made.parent is not None:
            tasks.start_soon(_look, made.parent, looking)
        yield made
        looking.cancel()
        missing = await made.finish()
        assert not missing, f"{missing} messages were not handled"
        for worker in made.workers:
            worker.drain()
