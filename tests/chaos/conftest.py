"""What the chaos tests share."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers.running import Broker
from tests.chaos.orders import ROOT, Expected, Warehouse, committed, place_of_its_own
from tests.cli.command import COMMAND, Result, environment


@pytest.fixture
def url(broker: Broker) -> Iterator[str]:
    with place_of_its_own(broker) as url:
        yield url


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "orders.sqlite3")


class Run:
    """A `flowstream run` of a test's pipeline, as a process that can be sent signals."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._folder = folder

    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = 60) -> Result:
        code = self.process.wait(timeout)
        out, err = (self._folder / name for name in ("out", "err"))
        return Result(code, out.read_text(), err.read_text())


class Runner:
    """Starts `flowstream run MODULE`; nothing it started is left behind."""

    def __init__(self, url: str, warehouse: Warehouse, folder: Path) -> None:
        self.url = url
        self.warehouse = warehouse
        self.folder = folder

    @contextmanager
    def __call__(self, module: str, *options: str, **variables: object) -> Iterator[Run]:
        env = {"ORDERS_WAREHOUSE": str(self.warehouse.path)}
        env |= {f"ORDERS_{name.upper()}": str(value) for name, value in variables.items()}
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [*COMMAND, "run", f"tests.chaos.{module}", *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=environment(self.url, env),
            )
            try:
                yield Run(process, self.folder)
            except BaseException as error:
                said = (self.folder / "err").read_text(errors="replace")
                error.add_note(f"the end of what the run had written:\n{said[-4000:]}")
                raise
            finally:
                process.kill()
                process.wait()

    def to_the_end(self, module: str = "slowed") -> Result:
        with self(module, "--until-idle", "1", "--json") as run:
            return run.end()

    def settled_up_to_the_commit(self, want: Expected) -> int:
        """The committed offset (-1: none), once it is sure that nothing before it is missing."""
        offset = committed(self.url)
        if offset is None:
            return -1
        stored = self.warehouse.rows.keys()
        missing = [
            each for each in range(offset + 1) if each not in stored and each not in want.rejected
        ]
        assert not missing, f"{offset} is committed, {missing[:5]} are not in the warehouse"
        return offset


@pytest.fixture
def runner(url: str, warehouse: Warehouse, tmp_path: Path) -> Runner:
    return Runner(url, warehouse, tmp_path)
