"""Runs the processes of comparisons on one broker, and gathers what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from tests.benchmarks import streams
from tests.benchmarks.figures import Measurement
from tests.benchmarks.measuring import Skipped
from tests.benchmarks.scenarios import Comparison, Scenario
from tests.benchmarks.schedule import Turn, turns
from tests.broker.serving import served
from tests.brokers.running import running

MOST_USES = 8
"""How many processes read a stream before it is made again. Each of their commits leaves a record
at its end, and later readers have to pass those: with thousands of them it takes seconds."""
TIMEOUT = 900.0
"""Seconds that a process may take."""


class Failed(Exception):
    """A process ended with an error; the text is the end of what it wrote."""


@contextmanager
def broker(name: str) -> Iterator[tuple[str, str]]:
    """The address of a broker, and what to call it; `name` may be an address itself.

    Raises LookupError where it is not up.
    """
    if "://" in name:
        yield name, "the broker of --broker"
    elif name == "embedded":
        with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (_, url):
            yield url, "the embedded broker"
    elif nodes := running().get(name):
        yield nodes[0].url, "RabbitMQ " + ".".join(map(str, nodes[0].version))
    else:
        raise LookupError(
            f"RabbitMQ {name} is not up: start it with `make brokers` (as root), or measure on "
            "`--broker embedded`"
        )


class Harness:
    """Measures comparisons. Its streams are its own, and `close` deletes them."""

    def __init__(
        self, url: str, *, messages: int, rounds: int, seconds: float, tell: Callable[[str], None]
    ) -> None:
        self._url = url
        self._messages = messages
        self._rounds = rounds
        self._seconds = seconds
        self._tell = tell
        self._prefix = f"benchmark.{uuid.uuid4().hex[:8]}"
        self._made: dict[str, str] = {}
        self._used: Counter[str] = Counter()
        self.measurements: defaultdict[str, list[Measurement]] = defaultdict(list)
        self.missing: dict[str, str] = {}
        """Why a scenario has no measurement, or not all: skipped, or failed."""

    def measure(self, comparison: Comparison) -> None:
        """Let the scenarios take turns until every round is done."""
        rate = self._rate_of(comparison)
        total = sum(1 for _ in turns(comparison, self._rounds))
        for number, turn in enumerate(turns(comparison, self._rounds), 1):
            name = turn.scenario.name
            if name in self.missing:
                continue
            measured = self._attempt(comparison, turn, rate)
            if measured is not None:
                self.measurements[name].append(Measurement(turn.round, turn.seed, measured))
            said = self.missing.get(name) or _in_short(measured or {})
            self._tell(f"{comparison.name} {number}/{total}  {name}: {said}")

    def close(self) -> None:
        for stream, kind in self._made.items():
            self._delete(stream, kind)

    @property
    def failed(self) -> list[str]:
        return [f"{name}: {why}" for name, why in self.missing.items() if why.startswith("failed")]

    def _attempt(
        self, comparison: Comparison, turn: Turn, rate: int | None
    ) -> dict[str, Any] | None:
        """What one process measured; None where it was skipped or failed."""
        try:
            measured = self._take(comparison, turn, rate)
        except Failed as error:
            self.missing[turn.scenario.name] = f"failed: {error}"
            return None
        if "skipped" in measured:
            self.missing[turn.scenario.name] = f"skipped: {measured['skipped']}"
            return None
        return measured

    def _take(self, comparison: Comparison, turn: Turn, rate: int | None) -> dict[str, Any]:
        kind = comparison.stream
        messages = self._messages * comparison.times
        options = dict(turn.scenario.options)
        if rate is not None:
            options["rate"] = rate
            messages = int(rate * self._seconds) or self._messages
        fresh: list[str] = []
        stream = ""
        try:
            if kind == "empty":
                stream = self._create(f"{self._prefix}.{uuid.uuid4().hex[:8]}", "empty", 0)
                fresh.append(stream)
            elif kind is not None:
                stream = self._full("raw" if kind == "copy" else kind, messages)
            if kind == "copy":
                options["output"] = self._create(f"{stream}.{uuid.uuid4().hex[:8]}", "empty", 0)
                fresh.append(options["output"])
            return self._run(turn.scenario, stream, messages, options, turn.seed)
        except Skipped as reason:
            return {"skipped": str(reason)}
        finally:
            for each in fresh:
                self._delete(each, "empty")

    # -- streams

    def _full(self, kind: str, messages: int) -> str:
        name = f"{self._prefix}.{kind}.{messages}"
        self._used[name] += 1
        if name in self._made and self._used[name] > MOST_USES:
            self._delete(name, self._made.pop(name))
            self._used[name] = 1
        if name not in self._made:
            self._tell(f"publishing {messages:,} messages for {kind}")
            self._create(name, kind, messages)
            self._made[name] = kind
        return name

    def _create(self, stream: str, kind: str, messages: int) -> str:
        anyio.run(streams.create, self._url, stream, kind, messages)
        return stream

    def _delete(self, stream: str, kind: str) -> None:
        anyio.run(streams.delete, self._url, stream, kind)

    # -- processes

    def _run(
        self, scenario: Scenario, stream: str, messages: int, options: dict[str, Any], seed: int
    ) -> dict[str, Any]:
        process = begin(scenario.run, self._url, stream, messages, options, seed)
        if scenario.publisher is None:
            return finish(process)
        assert process.stdout is not None
        first = json.loads(process.stdout.readline() or "{}")
        if "ready" not in first:
            return first or finish(process)
        publisher = begin(scenario.publisher, self._url, stream, messages, options, seed)
        published = finish(publisher)
        return {**finish(process), "publisher": published}

    def _rate_of(self, comparison: Comparison) -> int | None:
        """Messages a second; "half" of what the slowest scenario can take is found out first."""
        if comparison.rate != "half":
            assert not isinstance(comparison.rate, str)
            return comparison.rate
        rates = []
        for scenario in comparison.scenarios:
            measured = self._attempt(comparison, Turn(scenario, 0, 0), 0)
            if measured is not None:
                rates.append(measured["messages"] / measured["seconds"])
        rate = int(min(rates, default=2000) / 2000) * 1000 or 1000
        self._tell(f"{comparison.name}: half of the load is {rate:,} messages a second")
        return rate


def begin(
    run: str, url: str, stream: str, messages: int, options: dict[str, Any], seed: int = 0
) -> subprocess.Popen[str]:
    """A process of worker.py that measures."""
    task = {"run": run, "url": url, "stream": stream, "messages": messages, "options": options}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.worker", json.dumps(task)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process printed last. Raises Failed where it did not end well."""
    killer = threading.Timer(TIMEOUT, process.kill)
    killer.start()
    try:
        out, errors = process.communicate()
    finally:
        killer.cancel()
    if process.returncode or not out.strip():
        last = (errors.strip() or f"it ended with {process.returncode}").splitlines()[-1]
        raise Failed(last)
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def _in_short(measured: dict[str, Any]) -> str:
    if "p50_ms" in measured:
        return f"p50 {measured['p50_ms']:.2f} ms, p99 {measured['p99_ms']:.2f} ms"
    rate = measured["messages"] / measured["seconds"]
    return f"{rate:,.0f} messages/s, {measured['cpu']:.2f} s of CPU"
