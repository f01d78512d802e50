"""A result that nobody gets is no success: standard output is closed, or its disk is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio.to_thread
import pytest

from flowstream.broker import Broker
from flowstream.cli.exit_codes import ExitCode
from flowstream.client import Environment
from tests.cli.command import environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is Linux's /dev/full"),
]

CLOSED, FULL = ">&-", ">/dev/full"
WHY = {CLOSED: "it is closed", FULL: "no space left on device"}

SHOP = """
from flowstream import IterableProducer, Message, Pipeline

shop = Pipeline("shop", IterableProducer([b"1", b"2"]))


@shop.processor
async def handle(message: Message[bytes]) -> None:
    print("handled", flush=True)
"""


def flowstream(
    words: str, output: str, folder: Path, url: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = f"exec {sys.executable} -c 'from flowstream.cli import main; main()' {words} {output}"
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=environment(url), text=True, check=False,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("output", [CLOSED, FULL])
@pytest.mark.parametrize(
    "words", ["--help", "--version", "exit-codes", "config --json", "graph shop"]
)
def test_a_command_says_that_its_result_could_not_be_written(
    tmp_path: Path, words: str, output: str
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    result = flowstream(words, output, tmp_path)
    assert result.returncode == ExitCode.OUTPUT
    [line] = result.stderr.splitlines()
    assert line.startswith("error: the result could not be written to standard output: ")
    assert WHY[output] in line


@pytest.mark.anyio
@pytest.mark.parametrize("output", [CLOSED, FULL])
@pytest.mark.parametrize(
    "words", ["lag orders", "tail orders --from first", "streams stats orders"]
)
async def test_so_does_one_that_asks_a_broker(tmp_path: Path, words: str, output: str) -> None:
    async with Broker(port=0) as broker, Environment(broker.url) as env:
        await env.create_stream("orders")
        async with env.publisher("orders") as publisher:
            await publisher.publish(b"1")
        await env.store_offset_verified("shop", "orders", 0)
        result = await anyio.to_thread.run_sync(flowstream, words, output, tmp_path, broker.url)
    assert result.returncode == ExitCode.OUTPUT, result.stderr
    assert WHY[output] in result.stderr


def test_a_run_ends_with_its_own_code_where_standard_output_is_closed(tmp_path: Path) -> None:
    """A service may be started like that, and its handlers may print."""
    (tmp_path / "shop.py").write_text(SHOP)
    result = flowstream("run shop", CLOSED, tmp_path)
    assert result.returncode == ExitCode.OK
    assert "failed" not in result.stderr


def test_a_run_says_that_its_summary_could_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.replace('print("handled", flush=True)', "..."))
    result = flowstream("run shop", FULL, tmp_path)
    assert result.returncode == ExitCode.OUTPUT
    assert "error: the result could not be written to standard output: " in result.stderr


@pytest.mark.parametrize("debug", ["", "--debug "])
def test_a_full_disk_of_logs_ends_no_run(tmp_path: Path, debug: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    command = f"{debug}run shop"
    result = flowstream(command, ">out 2>/dev/full", tmp_path)
    assert result.returncode == ExitCode.OK
    assert "2 messages handled (2 ok)" in (tmp_path / "out").read_text()
    (tmp_path / "shop.py").write_text(
        SHOP.replace('print("handled", flush=True)', 'message.fail("no")')
    )
    result = flowstream(command, ">out 2>/dev/full", tmp_path)
    assert result.returncode == ExitCode.HALTED
