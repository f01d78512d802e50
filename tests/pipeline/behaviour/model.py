"""A pipeline of random shape over a stream of scripted messages, watched by a model of it.

Every message carries its script: what the processor and the batchers do with it, try by try. The
model sees what the handlers see and keeps a book; it knows nothing of the pipeline's insides.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from flowstream.errors import CommitNotVerified
from flowstream.pipeline import (
    Batch,
    Failure,
    FailurePolicy,
    Intake,
    Message,
    OpenPolicy,
    Producer,
    Slice,
)

BATCHERS = ("default", "a", "b")


@dataclass(frozen=True)
class Script:
    """What becomes of one message. `tries` and `batch` are the actions of successive tries."""

    tries: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    partition: int = 0
    key: int | None = None
    flush: bool = False
    padding: int = 0
    garbage: bool = False

    def body(self, n: int) -> bytes:
        if self.garbage:
            return b"{" * (n % 9 + 1)
        return json.dumps({"n": n, "p": self.partition, "pad": "x" * self.padding}).encode()


@dataclass(frozen=True)
class Shape:
    """The options of a pipeline. `mode`: its processor takes "each" message, or "slices", or there
    is "none" and a batcher comes first."""

    mode: str = "each"
    concurrency: int = 1
    partitioned: bool = False
    max_demand: int = 1000
    batchers: int = 1
    batch_concurrency: int = 1
    size: int = 10
    max_bytes: int | None = None
    timeout: float = 1.0
    attempts: int = 1
    backoff: float = 1.0
    jitter: float = 0.2
    halts: bool = False
    window: int = 50
    window_bytes: int = 1 << 20
    commit_every: int = 1
    handler_seconds: float = 0.0
    slices: tuple[int, ...] = (10,)


class LiveStream(Producer):
    """A growing stream with stored offsets; a restarted producer goes on behind what it sent."""

    resumable = True

    def __init__(self, model: Model) -> None:
        self.model = model
        self.stored: int | None = None
        self.sent = self.began = 0
        self.crash = False
        self.refuse_commits = 0
        self.grown = anyio.Event()

    async def open(self, context: Any) -> None:
        self.sent = self.began = 0 if self.stored is None else self.stored + 1
        self.crash = False

    async def run(self, intake: Intake) -> None:
        partition = intake.open("orders", committed=self.stored)
        slices, turn = self.model.shape.slices, 0
        while True:
            if self.crash:
                self.crash = False
                raise RuntimeError("the producer crashed, as it was told to")
            size = slices[turn % len(slices)]
            turn += 1
            first = self.sent
            bodies = self.model.bodies[first : first + size]
            if bodies:
                self.sent = first + len(bodies)
                await partition.send(bodies, offset=first)
            else:
                self.grown = anyio.Event()
                await self.grown.wait()

    async def commit(self, stream: str, offset: int) -> None:
        if self.refuse_commits:
            self.refuse_commits -= 1
            raise ConnectionError("not now")
        assert self.stored is None or offset > self.stored, "the committed offset went back"
        self.stored = offset
        self.model.check_commit(offset)

    async def verify(self, stream: str, offset: int) -> None:
        if self.stored != offset:
            raise CommitNotVerified(f"{self.stored} is stored, not {offset}")

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        return self.sent == len(self.model.bodies)


class Collect(FailurePolicy):
    """A policy that takes a while and tells the model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @asynccontextmanager
    async def open_policy(self, context: Any) -> AsyncIterator[OpenPolicy]:
        yield Collector(self.model)


class Collector(OpenPolicy):
    def __init__(self, model: Model) -> None:
        self.model = model

    async def handle(self, failures: Sequence[Failure]) -> str:
        await anyio.sleep(0.05)
        for failure in failures:
            self.model.disposed(failure)
        return "dead_lettered"


@dataclass
class Book:
    """What the model saw of one run."""

    handling: dict[int, int] = field(default_factory=Counter)
    unresolved: dict[Hashable, set[int]] = field(default_factory=lambda: defaultdict(set))
    highest: dict[Hashable, int] = field(default_factory=dict)
    open_batches: dict[Hashable, set[int]] = field(default_factory=lambda: defaultdict(set))
    first_seen: dict[Hashable, int] = field(default_factory=dict)
    busy: Counter[Hashable] = field(default_factory=Counter)
    outcomes: dict[int, str] = field(default_factory=dict)
    branches: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


_WORST = ("ok", "dropped", "dead_lettered")


class Model:
    """Scripts, what has been done over all runs, and the book of the current one."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.bodies: list[bytes] = []
        self.tried: Counter[int] = Counter()
        self.tried_in_batch: Counter[tuple[str, int]] = Counter()
        self.done: set[int] = set()
        self.shape = Shape()
        self.book = Book()
        self.wrong: list[str] = []

    def publish(self, scripts: Sequence[Script]) -> None:
        for script in scripts:
            self.bodies.append(script.body(len(self.scripts)))
            self.scripts.append(script)

    def begin(self, shape: Shape) -> None:
        self.shape = shape
        self.book = Book()

    def complain(self, what: str) -> None:
        """Handlers cannot fail a test by raising: that is what pipelines are for."""
        self.wrong.append(what)

    # -- what handlers are told to do

    async def process(self, message: Message[Any]) -> None:
        n, script = message.offset, self.scripts[message.offset]
        self._order_of_processing(n)
        tries = self.tried[n]
        self.tried[n] += 1
        if message.data != json.loads(self.bodies[n]):
            self.complain(f"{n} was not handed over as it was delivered")
        message.data["touched"] = True
        if message.attempt > self.shape.attempts:
            self.complain(f"{n} had attempt {message.attempt} of {self.shape.attempts}")
        if self.shape.handler_seconds:
            await anyio.sleep(self.shape.handler_seconds)
        action = script.tries[tries] if tries < len(script.tries) else "ok"
        if action == "slow":
            await anyio.sleep(3)
        elif action == "early":
            message.settle()
            self._finish(n, "ok")
        elif action == "raise":
            self.book.unresolved[self.line_of(n)].add(n)
            raise ValueError("as it was told to")
        elif action in ("fail", "final"):
            self.book.unresolved[self.line_of(n)].add(n)
            message.fail("as it was told to", retry=action == "fail")
            return
        self.book.unresolved[self.line_of(n)].discard(n)
        if action == "drop":
            message.drop()
            self._finish(n, "dropped")
            return
        names = self.routes_of(n)
        if names:
            message.to(*names, key=script.key, flush=script.flush)
        else:
            self._finish(n, "ok")

    async def process_slice(self, part: Slice[Any]) -> list[Any] | None:
        """Do with each message what its script says; give back its data every other time."""
        for message in part.messages:
            try:
                await self.process(message)
            except ValueError as error:
                message.fail(error)
        return part.data if len(part) % 2 else None

    async def store(self, batch: Batch[Any]) -> None:
        offsets = [message.offset for message in batch]
        self._shape_of(batch)
        self._order_of_batches(batch, offsets)
        tokens = self._tokens(batch)
        self.book.busy.update(tokens)
        if any(self.book.busy[token] > 1 for token in tokens):
            self.complain(f"two batches of {tokens} at the same time")
        try:
            await self._store(batch)
        finally:
            self.book.busy.subtract(tokens)

    async def _store(self, batch: Batch[Any]) -> None:
        if self.shape.handler_seconds:
            await anyio.sleep(self.shape.handler_seconds)
        raising = False
        actions = {}
        for message in batch:
            n, name = message.offset, batch.batcher
            tries = self.tried_in_batch[name, n]
            self.tried_in_batch[name, n] += 1
            script = self.scripts[n].batch
            action = actions[n] = script[tries] if tries < len(script) else "ok"
            if action == "slow":
                await anyio.sleep(2)
            elif action == "early":
                message.settle()
                self._finish(n, "ok")
            elif action in ("fail", "final"):
                message.fail("as it was told to", retry=action == "fail")
            elif action == "drop":
                message.drop()
            raising |= action == "raise"
        if raising:
            raise ValueError("the whole batch, as it was told to")
        for n, action in actions.items():
            if action not in ("fail", "final"):
                self._branch_done(batch.batcher, n, "dropped" if action == "drop" else "ok")

    def disposed(self, failure: Failure) -> None:
        n = failure.message.offset
        self.book.unresolved[self.line_of(n)].discard(n)
        if failure.phase == "batch":
            self._branch_done(failure.stage, n, "dead_lettered")
        else:
            self._finish(n, "dead_lettered")

    # -- what must hold

    def check_commit(self, offset: int) -> None:
        missing = [n for n in range(offset + 1) if n not in self.done]
        if missing:
            self.complain(f"{offset} was committed, {missing[:5]} are not settled")

    def routes_of(self, n: int) -> tuple[str, ...]:
        known = BATCHERS[: self.shape.batchers]
        if self.shape.mode == "none":
            return known
        names = tuple(name for name in self.scripts[n].routes if name in known)
        return names or known[:1]

    def line_of(self, n: int) -> Hashable:
        """What a message stays in order with while it is processed; None: with nothing."""
        if self.shape.partitioned:
            return ("partition", self.scripts[n].partition)
        return "stream" if self.shape.concurrency == 1 else ("alone", n)

    def _order_of_processing(self, n: int) -> None:
        line, book = self.line_of(n), self.book
        if others := book.unresolved[line] - {n}:
            self.complain(f"{n} was processed while {others} of {line} were not done")
        if book.highest.get(line, -1) > n:
            self.complain(f"{n} was processed after {book.highest[line]} of {line}")
        book.highest[line] = max(book.highest.get(line, -1), n)

    def _shape_of(self, batch: Batch[Any]) -> None:
        shape = self.shape
        if len(batch) > shape.size:
            self.complain(f"a batch of {len(batch)}, but size is {shape.size}")
        if shape.max_bytes is not None and len(batch) > 1 and batch.bytes > shape.max_bytes:
            self.complain(f"a batch of {batch.bytes} bytes, but max_bytes is {shape.max_bytes}")
        if {m.key for m in batch} != {batch.key}:
            self.complain("a batch mixes keys")
        if any(batch.batcher not in self.routes_of(m.offset) for m in batch):
            self.complain(f"{batch.batcher} got what was not routed to it")
        if batch.attempt > shape.attempts:
            self.complain(f"attempt {batch.attempt} of {shape.attempts}")

    def _tokens(self, batch: Batch[Any]) -> list[Hashable]:
        """Batches with one of these in common are handled one after the other."""
        tokens: list[Hashable] = []
        if batch.key is not None:
            tokens.append((batch.batcher, "key", batch.key))
        if batch.partition is not None:
            tokens.append((batch.batcher, "partition", batch.partition))
        return tokens

    def _order_of_batches(self, batch: Batch[Any], offsets: list[int]) -> None:
        shape = self.shape
        serial = shape.partitioned or shape.batch_concurrency == 1 or batch.key is not None
        if not serial or not (shape.partitioned or shape.concurrency == 1):
            return
        seen, waiting = self.book.first_seen, self.book.open_batches
        for n in offsets:
            line = (batch.batcher, self.line_of(n), batch.key)
            late = {m for m in waiting[line] if m < n} - set(offsets)
            if late:
                self.complain(f"{n} of {line} was stored while {late} were not done")
            if batch.attempt == 1:
                if seen.get(line, -1) > n:
                    self.complain(f"{n} of {line} was stored after {seen[line]}")
                seen[line] = n
            waiting[line].add(n)

    def _branch_done(self, name: str, n: int, outcome: str) -> None:
        for line, waiting in self.book.open_batches.items():
            if line[0] == name:  # type: ignore[index]
                waiting.discard(n)
        branches = self.book.branches[n]
        branches[name] = outcome
        if len(branches) == len(self.routes_of(n)):
            self._finish(n, max(branches.values(), key=_WORST.index))

    def _finish(self, n: int, outcome: str) -> None:
        self.done.add(n)
        self.book.outcomes.setdefault(n, outcome)
