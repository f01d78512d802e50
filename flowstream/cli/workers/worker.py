"""What is different in a worker process: its broker, its end, and that it shares its streams.

A worker gets its broker from the parent, reports its end instead of printing it, and refuses a
pipeline that several processes cannot share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from flowstream.cli.connection.broker_choice import BrokerChoice, RunBroker, Source
from flowstream.cli.connection.connect import Connection, local
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.workers.link import Link
from flowstream.cli.workers.messages import Message
from flowstream.connectors import StreamProducer, SuperStreamProducer
from flowstream.pipeline import Pipeline, Producer, RunningPipeline
from flowstream.signals import Signal
from flowstream.texts import type_name

IDLE_INTERVAL = 0.5
"""Seconds between two messages that a pipeline is idle."""

TICK = 0.02
"""Seconds between two looks whether a pipeline has subscribed."""


class Sender(Protocol):
    """The way to the parent."""

    async def send(self, message: Message) -> None: ...


class Turns:
    """One pipeline of a worker, which subscribes when the parent says so."""

    def __init__(self, link: Sender, pipeline: str) -> None:
        self._link = link
        self._pipeline = pipeline
        self._called = Signal()
        self._calls = self._done = 0

    def call(self) -> None:
        """It is its turn."""
        self._calls += 1
        self._called.notify()

    async def wait(self) -> None:
        """Wait for the first turn."""
        await self._link.send({"kind": "turn", "pipeline": self._pipeline})
        await self._called.until(lambda: self._calls > 0)

    async def follow(self, producer: SuperStreamProducer) -> None:
        """At the first turn report when the producer has subscribed; later ones make it subscribe
        again. Until cancelled."""
        first = True
        while True:
            await self._called.until(lambda: self._calls > self._done)
            self._done = self._calls
            if not first:
                await producer.subscribe_again()
            first = False
            await _subscribed(producer)
            await self._link.send({"kind": "subscribed", "pipeline": self._pipeline})


async def _subscribed(producer: SuperStreamProducer) -> None:
    while True:
        if producer.subscribed:
            return
        await anyio.sleep(TICK)


@dataclass(slots=True)
class Worker:
    """This process as a worker. `lent` is what the parent says about the broker."""

    link: Link
    lent: Mapping[str, Any]
    turns: dict[str, Turns] = field(default_factory=dict)

    def its_turn(self, pipeline: str) -> None:
        """The parent says that a pipeline may subscribe, or shall do so again."""
        if pipeline in self.turns:
            self.turns[pipeline].call()

    def take_turns(self, pipeline: Pipeline, group: TaskGroup) -> None:
        """Let a pipeline subscribe when it is its turn, if it shares its partitions."""
        producer = pipeline.producer
        if isinstance(producer, SuperStreamProducer) and is_shared(producer):
            turns = self.turns[pipeline.name] = Turns(self.link, pipeline.name)
            producer.subscribe_after(turns.wait)
            group.start_soon(turns.follow, producer)

    async def report_idle(self, pipeline: str, running: RunningPipeline, seconds: float) -> None:
        """Report to the parent whenever a pipeline is idle, until cancelled.

        The parent ends all workers at once: one that reads no partition yet has to stay.
        """
        while True:
            await running.wait_idle(seconds)
            await self.link.send({"kind": "idle", "pipeline": pipeline})
            await anyio.sleep(IDLE_INTERVAL)

    def choice(self, configured: Callable[[], Connection]) -> BrokerChoice:
        """The broker that the parent has chosen: an embedded one, or the configured one."""
        url = self.lent["url"]
        return BrokerChoice(Source.NAMED, configured() if url is None else local(url))

    def broker(self, choice: BrokerChoice) -> RunBroker:
        """The broker of the run, which the parent has started or asked already."""
        return RunBroker(
            choice.connection, (), creates=self.lent["creates"], remedy=self.lent["remedy"]
        )

    async def prepared(self, pipelines: Iterable[Pipeline], connection: Connection) -> None:
        """Tell the parent that the streams are there; for `auto`, how many partitions they have.

        That number is 0 if the pipelines cannot be shared.
        """
        partitions = 0
        producers = [it.producer for it in pipelines]
        if self.link.auto and all(is_shared(it) for it in producers):
            async with connection.opened() as environment:
                for producer in producers:
                    if isinstance(producer, SuperStreamProducer):
                        found = await environment.partitions(producer.stream)
                        partitions = max(partitions, len(found))
        await self.link.send({"kind": "prepared", "partitions": partitions})


def is_shared(producer: Producer) -> bool:
    """Whether several processes can share what it reads."""
    return isinstance(producer, SuperStreamProducer) and producer.single_active


def check_shared(pipelines: Iterable[Pipeline]) -> None:
    """Refuse pipelines of which every worker would handle every message."""
    for pipeline in pipelines:
        producer = pipeline.producer
        if not is_shared(producer):
            raise CommandError(
                f"--workers: {pipeline.name!r} cannot run in several processes: {_why(producer)}",
                ExitCode.DECLARATION,
            )


def _why(producer: Producer) -> str:
    if isinstance(producer, SuperStreamProducer):
        return (
            f"each would handle every message of {producer.stream!r}; add single_active=True to "
            "its SuperStreamProducer"
        )
    if isinstance(producer, StreamProducer):
        name = producer.stream
        return (
            f"it reads the plain stream {name!r}, which cannot be shared. Copy it to a super "
            f"stream (flowstream super-streams create {name}-shared --partitions N --from {name} "
            f"--key FIELD), and read that with SuperStreamProducer({name + '-shared'!r}, "
            "single_active=True)"
        )
    return (
        f"each would read all of {type_name(producer)}; only super streams can be shared "
        "(SuperStreamProducer with single_active=True)"
    )
