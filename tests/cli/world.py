"""What commands are run on: streams, dead letters, super streams and a running pipeline.

Made by the client in this process, which is quicker than by commands.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import anyio

from flowstream import SqliteSink
from flowstream.client import AmqpMessage, Environment
from tests.brokers.running import Broker
from tests.cli.command import Started
from tests.cli.modules import write_module

MESSAGES = 3
SINKS = """
from flowstream import Message, Pipeline, SqliteSink, StreamProducer

pipeline = Pipeline("shop", StreamProducer({stream!r}, reference="me"))


@pipeline.processor
async def check(message: Message[dict[str, int]]) -> None: ...


pipeline.sink("rows", SqliteSink({path!r}, "rows", columns={{"n": int}}))
"""


class World:
    """A broker, and a folder. Every stream has a name of its own that begins with `prefix`."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.prefix = f"every-{uuid.uuid4().hex[:6]}"
        self._count = 0
        self._run: Started | None = None
        self._address = ""
        self._listed = ""
        (folder / "three.ndjson").write_bytes(b"".join(b'{"n":%d}\n' % n for n in range(MESSAGES)))

    def end(self) -> None:
        """End what runs, and delete the streams of a broker that goes on."""
        if self._run is not None:
            self._run.__exit__(None, None, None)
        if self.broker.management is not None:
            self.broker.remove(self.prefix)

    def fill(self, line: str) -> list[str]:
        """The words of a line; each `{thing}` in it is made, and named there."""
        made = {name: str(make()) for name, make in self._things.items() if f"{{{name}}}" in line}
        return line.format(**made).split()

    @property
    def _things(self) -> dict[str, Callable[[], str]]:
        return {
            "new": self._name,
            "stream": self.stream,
            "dead": self.dead_letters,
            "super": self.super_stream,
            "module": self.module,
            "sinks": self.sinks,
            "monitor": self.monitor,
            "management": self.management,
        }

    def _name(self) -> str:
        self._count += 1
        return f"{self.prefix}-{self._count}"

    def stream(self) -> str:
        """A stream of three messages of which a reader `me` has settled the first."""
        name = self._name()

        async def make(environment: Environment) -> None:
            await environment.create_stream(name)
            async with environment.publisher(name) as publisher:
                bodies = [AmqpMessage.of(b'{"n":%d}' % n).raw for n in range(MESSAGES)]
                await publisher.publish_many(bodies)
            await environment.store_offset_verified("me", name, 0)

        return self._make(make, name)

    def dead_letters(self) -> str:
        """A stream of one dead letter, which comes from a stream that is there."""
        source = self.stream()
        about = {"x-pipeline": "shop", "x-stream": source, "x-offset": 1, "x-reason": "too late"}
        letter = AmqpMessage.of(b'{"n":1}', application_properties=about).raw
        name = f"{source}.dead"

        async def make(environment: Environment) -> None:
            await environment.create_stream(name)
            async with environment.publisher(name) as publisher:
                await publisher.publish_many([letter])

        return self._make(make, name)

    def super_stream(self) -> str:
        """A super stream of two partitions."""
        name = self._name()
        return self._make(lambda it: it.create_super_stream(name, partitions=2), name)

    def management(self) -> str:
        """The address of the management API of a broker that has a super stream to list."""
        if self.broker.management is None:
            return "http://localhost:9"
        self._listed = self._listed or self.super_stream()
        return self.broker.management

    def module(self) -> str:
        """A module whose pipeline, named like its stream, has three messages to handle."""
        stream = self.stream()
        return write_module(self.folder, stream, module=stream.replace("-", "_"))

    def sinks(self) -> str:
        """A module whose pipeline `shop` has written two of three messages into a table."""
        stream = self.stream()
        module = f"sinks_{stream.replace('-', '_')}"
        path = self.folder / f"{module}.db"
        (self.folder / f"{module}.py").write_text(SINKS.format(stream=stream, path=str(path)))
        SqliteSink(path, "rows", columns={"n": int}).initialize()
        with closing(sqlite3.connect(path)) as database, database:
            row = ("shop/rows", stream, "0-1", 0)
            database.execute("INSERT INTO flowstream_offsets VALUES (?, ?, ?, ?)", row)
        return module

    def monitor(self) -> str:
        """The address of a running pipeline's monitor; one for all who ask."""
        if self._run is None:
            line = ("run", self.module(), "--http", "127.0.0.1:0")
            self._run = Started(*line, url=self.broker.url, cwd=self.folder)
            self._address = self._run.line("live page on").split("//")[1].split("/")[0]
        return self._address

    def _make(self, make: Callable[[Environment], Awaitable[object]], name: str) -> str:
        async def connected() -> None:
            async with Environment(self.broker.url) as environment:
                await make(environment)

        anyio.run(connected)
        return name
