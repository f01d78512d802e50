"""What a failed test leaves behind in build/failures/, for whoever has to find out why.

- frames.txt: what the clients in this process sent and received on each connection
- broker-NODE.log: what the real broker wrote to its log during the test
- stacks.txt: where every thread and every suspended coroutine was when the test ran out of time
  (the stacks that pytest-timeout prints show the event loop, not what waits on it)

The report of the failure names the files.
"""

from __future__ import annotations

import faulthandler
import gc
import math
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CoroutineType
from typing import Any

import pytest

import flowstream.client.connecting.transport as transport
from tests.brokers.running import Broker, running
from tests.support.report import broker_of

FAILURES = Path(__file__).resolve().parents[2] / "build" / "failures"
FRAMES_KEPT = 400
BYTES_SHOWN = 64
LOG_KEPT = 1 << 20
BEFORE_TIMEOUT = 1.0
"""Seconds before a test's timeout at which the stacks are written down."""


def folder_of(item: pytest.Item) -> Path:
    """A folder for what this test leaves."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", item.nodeid.removeprefix("tests/"))
    return FAILURES / name[-150:].strip("-")


# -- frames --------------------------------------------------------------------------

frames: deque[str] = deque(maxlen=FRAMES_KEPT)
_connections = 0


async def _recorded(*arguments: Any) -> Any:
    """As `transport._connect`, but what passes through the stream is remembered."""
    global _connections
    stream = await _connect(*arguments)
    _connections += 1
    name = f"connection {_connections} to {arguments[0].host}:{arguments[0].port}"
    send, receive = stream.send, stream.receive
    receive_all: Any = getattr(stream, "receive_all", None)

    async def sent(data: bytes) -> None:
        _remember(name, "sent", data)
        await send(data)

    async def received(max_bytes: int = 65536) -> bytes:
        with _remembered_end(name):
            data: bytes = await receive(max_bytes)
        _remember(name, "received", data)
        return data

    async def received_all(room: Any, filled: Any) -> None:
        view = memoryview(b"")

        def roomed() -> memoryview:
            nonlocal view
            view = room()
            return view

        def counted(count: int) -> None:
            _remember(name, "received", view[:count])
            filled(count)

        with _remembered_end(name):
            await receive_all(roomed, counted)

    into = {"receive": received} if receive_all is None else {"receive_all": received_all}
    stream.__dict__.update(send=sent, **into)
    return stream


@contextmanager
def _remembered_end(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        frames.append(f"{time.time():.4f} {name} ended: {type(error).__name__}")
        raise


def _remember(name: str, direction: str, data: bytes | memoryview) -> None:
    shown = bytes(data[:BYTES_SHOWN]).hex(" ")
    frames.append(f"{time.time():.4f} {name} {direction} {len(data)} bytes: {shown}")


_connect = transport._connect
setattr(transport, "_connect", _recorded)  # noqa: B010 - what mypy refuses as an assignment


# -- the broker's log ----------------------------------------------------------------


class Logs:
    """How long the logs of a test's brokers were when it began."""

    def __init__(self, brokers: Sequence[Broker]) -> None:
        self._begun = {Path(each.log): _size(Path(each.log)) for each in brokers if each.log}

    def write(self, folder: Path) -> None:
        for log, begun in self._begun.items():
            if not log.exists():
                continue
            with log.open("rb") as file:
                file.seek(max(begun, _size(log) - LOG_KEPT))
                (folder / f"broker-{log.stem}.log").write_bytes(file.read())


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begins to remember anew; what is kept is decided when the test has failed.

    A fixture for every test would take as long as the rest of a short one.
    """
    frames.clear()
    shutil.rmtree(folder_of(item), ignore_errors=True)
    name = broker_of(item)
    item.stash[_LOGS] = Logs(() if name is None else running().get(name, ()))


_LOGS: pytest.StashKey[Logs] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when == "call":
        folder = folder_of(item)
        folder.mkdir(parents=True, exist_ok=True)
        if frames:
            (folder / "frames.txt").write_text("\n".join(frames) + "\n")
        if (logs := item.stash.get(_LOGS, None)) is not None:
            logs.write(folder)
        if kept := sorted(str(path) for path in folder.iterdir()):
            report.sections.append(("kept for you", "\n".join(kept)))
    return report


# -- stacks --------------------------------------------------------------------------


class Watch:
    """One thread that writes the stacks down shortly before a test runs out of time.

    It is woken only if a test ends before the moment at which it looks again anyway: nearly never.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: tuple[float, Path] | None = None
        self._looks = math.inf
        self._thread: threading.Thread | None = None

    def set(self, due: tuple[float, Path] | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()
        with self._changed:
            self._due = due
            if due is not None and due[0] < self._looks:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._due
                if due is None or due[0] > time.monotonic():
                    self._looks = math.inf if due is None else due[0]
                    self._changed.wait(None if due is None else due[0] - time.monotonic())
                    continue
                self._due = None
            write_stacks(due[1])


watch = Watch()


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    watch.set((time.monotonic() + settings.timeout - BEFORE_TIMEOUT, folder_of(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    watch.set(None)


def write_stacks(folder: Path) -> None:
    """Every thread, and every chain of suspended coroutines, into `folder`/stacks.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    suspended = [
        each
        for each in gc.get_objects()
        if isinstance(each, CoroutineType) and each.cr_frame is not None and each.cr_suspended
    ]
    awaited = {id(each.cr_await) for each in suspended}
    with (folder / "stacks.txt").open("w") as file:
        faulthandler.dump_traceback(file)
        for outermost in (each for each in suspended if id(each) not in awaited):
            file.write("\n" + "\n".join(_chain(outermost)) + "\n")


def _chain(awaiting: Any) -> Iterator[str]:
    """The lines at which a coroutine waits, from the outermost in."""
    while awaiting is not None:
        frame = getattr(awaiting, "cr_frame", None) or getattr(awaiting, "ag_frame", None)
        if frame is None:
            yield f"  waits for {type(awaiting).__name__}"
            return
        yield f"  {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        awaiting = getattr(awaiting, "cr_await", None) or getattr(awaiting, "ag_await", None)
