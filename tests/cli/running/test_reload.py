"""`flowstream run --reload`: drained and started again on a change, patient with what is broken."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from flowstream.cli.running.reload import child_command, is_source
from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream, wait_until
from tests.cli.modules import handled, numbered, write_module

pytestmark = pytest.mark.slow  # each starts a process of its own, and another one with each change


def replace(folder: Path, old: str, new: str) -> None:
    """Change the module as an editor does: another file takes its place."""
    file, other = folder / "shop.py", folder / "shop.py~"
    text = file.read_text()
    assert old in text
    other.write_text(text.replace(old, new))
    other.rename(file)


def publish(broker: Broker, stream: str, count: int) -> None:
    sent = flowstream("publish", stream, "-", "--create", url=broker.url, stdin=numbered(count))
    assert sent.code == 0, sent.err


def test_a_change_drains_and_starts_again(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    publish(broker, stream_name, 10)
    target = write_module(tmp_path, stream_name, policy="Drop()")
    replace(tmp_path, "DeadLetter,", "DeadLetter, Drop,")
    with Started("run", target, "--reload", "--plain", url=broker.url, cwd=tmp_path) as run:
        wait_until(lambda: len(handled(tmp_path)) >= 9)  # the one with a 7 is dropped
        replace(tmp_path, 'open("handled.txt"', 'open("second.txt"')
        run.line("shop.py changed: draining")
        publish(broker, stream_name, 5)
        wait_until(lambda: (tmp_path / "second.txt").exists())
        replace(tmp_path, "async def load", "async def load(:")
        run.line("error: shop cannot be imported: SyntaxError")
        run.line("exit code 11; waiting for a change")
        replace(tmp_path, "async def load(:", "async def load")
        run.line("shop.py changed")
        run.signal(signal.SIGTERM)
        result = run.end()
    assert result.code == 0, result.err
    assert handled(tmp_path) == [n for n in range(10) if n != 7]
    second = [int(line) for line in (tmp_path / "second.txt").read_text().split()]
    assert len(second) == 5
    assert min(second) > 9
    flowstream("streams", "delete", stream_name, "-y", url=broker.url)


def test_a_signal_drains_the_run_and_ends_both(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    publish(broker, stream_name, 10)
    target = write_module(tmp_path, stream_name, policy="Halt()")
    replace(tmp_path, "== 7", "== 70")
    with Terminal("run", target, "--reload", "--plain", url=broker.url, cwd=tmp_path) as run:
        wait_until(lambda: len(handled(tmp_path)) >= 10)
        run.type("\x03")
        assert run.end() == 0
    assert "committed offset 9" in run.screen
    flowstream("streams", "delete", stream_name, "-y", url=broker.url)


def test_ctrl_c_while_waiting_for_a_change(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("x = 1 / 0")
    with Started("run", "shop", "--reload", cwd=tmp_path) as run:
        run.line("waiting for a change")
        run.signal(signal.SIGINT)
        result = run.end()
    assert result.code == 130
    assert "Traceback" not in result.err


def test_the_run_drains_when_the_reloader_is_killed(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    publish(broker, stream_name, 3)
    target = write_module(tmp_path, stream_name, policy="Halt()")
    with Started("run", target, "--reload", "--plain", url=broker.url, cwd=tmp_path) as run:
        wait_until(lambda: len(handled(tmp_path)) >= 3)
        run.signal(signal.SIGKILL)
        result = run.end()
    assert "draining" in result.err
    assert "committed offset 2" in result.out
    flowstream("streams", "delete", stream_name, "-y", url=broker.url)


def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "watchfiles.py").write_text("raise ImportError('no watchfiles')")
    result = flowstream("run", "shop", "--reload", cwd=tmp_path, env={"PYTHONPATH": str(stubs)})
    assert result.code == 21
    assert len(result.err.splitlines()) == 1
    assert "pip install watchfiles" in result.err


def test_json_has_one_result(tmp_path: Path) -> None:
    result = flowstream("run", "shop", "--reload", "--json", cwd=tmp_path)
    assert (result.code, "exclude each other" in result.err) == (2, True)


def test_the_run_has_the_same_options() -> None:
    command = child_command(["run", "--reload", "shop", "--http", ":9", "--", "--reload"])
    assert command == [
        *(sys.executable, "-m", "flowstream", "run", "shop", "--http", ":9"),
        *("--with-parent", "--", "--reload"),
    ]


@pytest.mark.parametrize(
    ("path", "source"),
    [("a/b.py", True), (".env", True), ("a/pyproject.toml", True), ("a.pyc", False), ("x", False)],
)
def test_what_is_a_source(path: str, source: bool) -> None:
    assert is_source(os.path.join("/x", path)) == source
