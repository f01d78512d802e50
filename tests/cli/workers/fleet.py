"""A `flowstream run --workers` of a test, and what its handlers wrote down."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from anyio import to_thread

from flowstream.client import AmqpMessage, Environment
from tests.brokers.running import Broker
from tests.cli.command import COMMAND, Result, environment

MODULE = """
import os, time
from flowstream import Batch, Message, Pipeline, SuperStreamProducer

pipeline = Pipeline(
    "{name}",
    SuperStreamProducer("{name}", single_active=True, offset="first"),
    max_in_flight={window},
    commit_interval=0.2,
)
diary = open(f"handled.{{os.getpid()}}", "a", buffering=1)

@pipeline.processor()
async def check(message: Message[dict]) -> None:
    if message.data["n"] == {poison}:
        message.fail("this one is not wanted", retry=False)

@pipeline.batcher("load", size=50, batch_timeout=0.05)
async def load(batch: Batch[dict]) -> None:
    now = time.time()
    diary.write("".join(f"{{m.stream}} {{m.offset}} {{now}}\\n" for m in batch.messages))
"""
WINDOW = 500
PATIENCE = 150.0
"""Seconds for several interpreters to start on a machine that is busy."""


class Fleet:
    """One run with workers in a folder, of a super stream of its own."""

    def __init__(self, broker: Broker, folder: Path, *, poison: int = -1) -> None:
        self.broker = broker
        self.folder = folder
        self.name = f"fleet-{uuid.uuid4().hex[:8]}"
        self._poison = poison
        self.write_module()
        (folder / "runtime").mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._run: subprocess.Popen[bytes] | None = None

    def write_module(self, text: str = "") -> None:
        module = MODULE.format(name=self.name, window=WINDOW, poison=self._poison)
        (self.folder / "shop.py").write_text(module + text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._run is not None:
            self._run.kill()
            self._run.wait()
        if self.broker.management is not None:
            self.broker.remove(self.name)

    async def create(self, partitions: int = 3) -> None:
        async with Environment(self.broker.url) as environment:
            await environment.create_super_stream(self.name, partitions=partitions)

    async def publish(self, first: int, count: int, pause: Callable[[], Any]) -> int:
        """Publish messages, with `pause()` awaited after each hundred, until it returns True.

        Returns how many were confirmed.
        """
        published = 0
        async with Environment(self.broker.url) as environment:
            publisher = environment.super_stream_publisher(self.name)
            async with publisher:
                for start in range(first, first + count, 100):
                    numbers = range(start, min(start + 100, first + count))
                    bodies = [AmqpMessage.of(b'{"n":%d}' % n).raw for n in numbers]
                    await publisher.send_many(bodies, keys=[str(n) for n in numbers])
                    published += len(bodies)
                    if await pause():
                        break
                await publisher.flush()
        return published

    async def begin(self) -> None:
        """Create the super stream and start two workers; return once they are ready."""
        await self.create()
        self.start()
        await to_thread.run_sync(self.until, self.ready)

    @property
    def environment(self) -> Mapping[str, str]:
        return environment(self.broker.url, {"XDG_RUNTIME_DIR": str(self.folder / "runtime")})

    def start(self, *options: str, workers: str = "2") -> None:
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self._run = subprocess.Popen(
                [*COMMAND, "run", "shop", "--workers", workers, "--http", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=self.environment,
                preexec_fn=_minds_hangup,
            )

    @property
    def run(self) -> subprocess.Popen[bytes]:
        assert self._run is not None
        return self._run

    def command(self, *words: str) -> Result:
        """Another command of the same user."""
        done = subprocess.run(
            [sys.executable, "-m", "flowstream", *words],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def snapshot(self) -> dict[str, Any]:
        status, text = self.get("/api/snapshot")
        found: dict[str, Any] = (
            json.loads(text) if status == 200 else {"workers": [], "pipelines": []}
        )
        return found

    def until(self, holds: Callable[[], object], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.run.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def readers(self) -> set[int | None]:
        """The numbers of the workers that read a partition."""
        streams = [it for pipeline in self.snapshot()["pipelines"] for it in pipeline["streams"]]
        return {stream["worker"] for stream in streams}

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def end(self, timeout: float = PATIENCE) -> Result:
        code = self.run.wait(timeout)
        return Result(code, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def said(self) -> str:
        return (self.folder / "err").read_text(errors="replace")[-4000:]

    # -- what happened

    def workers(self) -> list[int]:
        """The processes of all workers that have ever handled something and are alive."""
        pids = [int(file.suffix[1:]) for file in self.folder.glob("handled.*")]
        return [pid for pid in pids if alive(pid)]

    def rows(self, process: object = "*") -> list[list[str]]:
        """What the workers, or one of them, wrote of each message. They may be writing a line."""
        return [
            line.split()
            for file in self.folder.glob(f"handled.{process}")
            for line in file.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def handled(self) -> Counter[tuple[str, int]]:
        """How often each message was handled, by stream and offset."""
        return Counter((stream, int(offset)) for stream, offset, _ in self.rows())

    def longest_pause(self, stream: str, since: float) -> float:
        """The longest time after `since` in which no message of a partition was handled."""
        times = sorted(float(at) for where, _, at in self.rows() if where == stream)
        later = [since, *(at for at in times if at >= since)]
        return max((b - a for a, b in itertools.pairwise(later)), default=0.0)


def _minds_hangup() -> None:
    """SIGHUP is ignored where the tests run below nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def alive(pid: int) -> bool:
    """Whether a process runs, and is not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
