"""One measurement: what it works on, its clock, and messages sent at a given rate."""

from __future__ import annotations

import resource
import time
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio

from tests.benchmarks.bodies import slices

BATCH = 1_000
STAMP = 20
"""The first bytes of a body whose latency is measured: when it was sent, in nanoseconds."""
WARM_UP = 1.0
"""Seconds of messages at the start whose latency does not count (a fifth of them at most)."""


class Skipped(Exception):
    """The scenario cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A stream of a broker, how many messages to move, and the options of the scenario."""

    url: str
    stream: str
    messages: int
    options: dict[str, Any]

    def address(self) -> dict[str, Any]:
        """The URL as the arguments that rstream takes."""
        parts = urlsplit(self.url)
        return {
            "host": parts.hostname or "localhost",
            "port": parts.port or 5552,
            "username": unquote(parts.username or "guest"),
            "password": unquote(parts.password or "guest"),
            "vhost": unquote(parts.path.removeprefix("/")) or "/",
        }


class Stopwatch:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def stop(self, messages: int, **more: Any) -> dict[str, Any]:
        """The measurement: seconds, CPU seconds, and the peak of resident memory in MiB."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu": time.process_time() - self._cpu,
            "messages": messages,
            "peak_mib": resident("VmHWM"),
            **more,
        }


def resident(field: str = "VmRSS") -> float:
    """MiB of memory of this process: now (VmRSS), or at most so far (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux; ru_maxrss may also count what the parent process had
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


# -- latency -------------------------------------------------------------------------


class Latencies:
    """Nanoseconds from sending to the handler, of each message."""

    def __init__(self, target: Target) -> None:
        self._expected = target.messages
        self._unmeasured = int(min(target.options["rate"] * WARM_UP, target.messages / 5))
        self._taken = array("q")
        self._watch: Stopwatch | None = None

    def take(self, body: bytes) -> bool:
        """Note that a message has arrived; whether it is the last one."""
        if self._watch is None:
            self._watch = Stopwatch()
        self._taken.append(time.monotonic_ns() - int(body[:STAMP]))
        return len(self._taken) == self._expected

    def result(self) -> dict[str, Any]:
        assert self._watch is not None
        measured = sorted(self._taken[self._unmeasured :])
        quantiles = {
            name: measured[min(len(measured) - 1, int(len(measured) * part))] / 1e6
            for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))
        }
        return self._watch.stop(len(self._taken), **quantiles)


async def send_at_rate(
    target: Target, send: Callable[[list[bytes]], Awaitable[object]]
) -> dict[str, Any]:
    """Send all messages, `rate` a second, in steps of at least a millisecond; 0 is without pause.

    A message is stamped right before it is sent, and one that is late is sent at once; `late_ms` is
    the longest such delay. The first message is sent before the clock starts: clients declare their
    publisher with it.
    """
    rate = target.options["rate"]
    endless = slices(target.messages, 1)

    async def send_stamped(count: int) -> None:
        some = [next(endless)[0] for _ in range(count)]
        stamp = b"%0*d" % (STAMP, time.monotonic_ns())
        await send([stamp + body[STAMP:] for body in some])

    await send_stamped(1)
    sent, late = 1, 0.0
    watch, start = Stopwatch(), time.perf_counter()
    while sent < target.messages:
        due = sent + BATCH
        if rate:
            elapsed = time.perf_counter() - start
            late = max(late, elapsed - sent / rate)
            due = int(elapsed * rate) + 1
        due = min(due, target.messages)
        if due > sent:
            await send_stamped(due - sent)
            sent = due
        if rate:
            next_due = max(sent / rate, time.perf_counter() - start + 0.001)
            await anyio.sleep(max(0.0, start + next_due - time.perf_counter()))
    return watch.stop(sent, late_ms=late * 1000)
