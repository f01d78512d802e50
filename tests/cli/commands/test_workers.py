"""`flowstream workers`: it asks runs over sockets that only this user can reach."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.workers import control
from flowstream.cli.workers.control import asked, folder, runs, serve_control, socket_of
from flowstream.cli.workers.decisions import Decisions, Member, Phase
from flowstream.monitor import WorkersMonitor
from tests.cli.command import flowstream
from tests.cli.rows import Bad, Row
from tests.monitor.workers.faces import Several

ROWS = {
    ("workers", "list"): Row(
        "", "no run with --workers of this user is running",
        Bad("--wrong", 2, "No such option"), document=r"\[\]", alone=True,
    ),
    ("workers", "restart"): Row(
        "999999999", "no run with --workers is process 999999999",
        Bad("orders", 2, "not a whole number"), code=28, alone=True,
    ),
}  # fmt: skip

pytestmark = pytest.mark.anyio


class Leader:
    """A parent with two workers that are ready."""

    def __init__(self) -> None:
        self.decisions = Decisions(2, cores=2)
        list(self.decisions.act(0.0))
        self.decisions.prepared(self.member(1), 3)
        list(self.decisions.act(0.0))
        for number in (1, 2):
            self.decisions.observed(self.member(number), ready=True, now=0.0)
        self.several = Several()

    @property
    def monitor(self) -> WorkersMonitor:
        return self.several.monitor

    def member(self, number: int) -> Member:
        current = self.decisions.slots[number].current
        assert current is not None
        return current


async def listening() -> None:
    """Wait until the run can be asked."""
    path = await to_thread.run_sync(lambda: socket_of(os.getpid()))
    while not await to_thread.run_sync(path.exists):
        await anyio.sleep(0.01)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(control, "TICK", 0.0)
    return tmp_path


def test_without_a_run_there_is_nothing_to_restart(private: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(private)}
    listed = flowstream("workers", "list", env=env)
    assert listed.code == 0
    assert "no run with --workers" in listed.err
    assert flowstream("workers", "list", "--json", env=env).json == []
    restarted = flowstream("workers", "restart", env=env)
    assert restarted.code == ExitCode.WORKER
    named = flowstream("workers", "restart", "4711", env=env)
    assert "no run with --workers is process 4711" in named.err


def test_a_folder_that_others_may_enter_is_not_used(private: Path) -> None:
    (private / "flowstream").mkdir(mode=0o777)
    (private / "flowstream").chmod(0o777)
    with pytest.raises(PermissionError, match="only this user"):
        folder()
    result = flowstream("workers", "list", env={"XDG_RUNTIME_DIR": str(private)})
    assert result.code == ExitCode.WORKER


async def test_a_run_is_listed_with_its_workers(private: Path) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(serve_control, Leader())
        await listening()
        path = await to_thread.run_sync(socket_of, os.getpid())
        mode = await to_thread.run_sync(lambda: path.stat().st_mode)
        assert mode & 0o777 == 0o600
        (run,) = await to_thread.run_sync(lambda: list(runs()))
        assert run["pid"] == os.getpid()
        assert [it["partitions"] for it in run["workers"]] == [["s-0", "s-2"], ["s-1"]]
        group.cancel_scope.cancel()
    assert not await to_thread.run_sync(path.exists)


async def test_a_restart_tells_how_it_goes_and_how_it_ended(private: Path) -> None:
    leader = Leader()
    answers: list[dict[str, object]] = []

    def restart() -> None:
        answers.extend(asked(socket_of(os.getpid()), {"do": "restart"}))

    async with anyio.create_task_group() as group:
        group.start_soon(serve_control, leader)
        await listening()
        async with anyio.create_task_group() as restarting:
            restarting.start_soon(to_thread.run_sync, restart)
            while leader.decisions.roll is None:
                await anyio.sleep(0)
            assert "being restarted" in leader.decisions.start_roll(1.0)
            leader.decisions.stop()
        group.cancel_scope.cancel()
    assert answers[0] == {"restarted": 0, "of": 2}
    assert answers[-1] == {"done": False, "text": "the run ends"}
    assert leader.member(1).phase is Phase.DRAINING


async def test_requests_that_are_none_change_nothing(private: Path) -> None:
    leader = Leader()
    async with anyio.create_task_group() as group:
        group.start_soon(serve_control, leader)
        await listening()
        path = await to_thread.run_sync(socket_of, os.getpid())
        for odd in (b"\n", b"[]\n", b"{\n", b'{"do": "kill"}\n', b"\xff\n"):
            stream = await anyio.connect_unix(path)
            async with stream:
                await stream.send(odd)
                assert b'"done": false' in await stream.receive()
        group.cancel_scope.cancel()
    assert leader.decisions.roll is None


def test_a_run_that_does_not_answer_is_named(
    private: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    monkeypatch.setattr(control, "PATIENCE", 0.01)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(socket_of(4711)))
        stopped.listen()
        assert list(runs()) == []
    assert "the run 4711 does not answer: timed out" in capsys.readouterr().err


def test_the_socket_of_a_killed_run_is_removed(private: Path) -> None:
    import socket

    left = socket_of(4711)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))
    assert list(runs()) == []
    assert not left.exists()
