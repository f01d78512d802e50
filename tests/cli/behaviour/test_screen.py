"""What is on the screen of a person at work: whole, without markup, and gone after Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.testing import broker_in_thread
from tests.cli.command import TIMEOUT, Started, Terminal, environment, flowstream, start

pytestmark = pytest.mark.timeout(120)

NAME = "orders[red]of-the-whole-company-since-it-was-founded-in-a-garage[/red][bold]"

SHOP = f"""
import asyncio
from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer

pipeline = Pipeline(
    "{NAME}",
    StreamProducer("orders"),
    retry=Retry(2),
    on_failure=DeadLetter("dead"),
    max_in_flight=50,
)

@pipeline.processor
async def check(message: Message[dict]) -> None:
    await asyncio.sleep(0.002)
    if message.data["n"] % 10 == 7:
        message.fail("no [green]sevens[/green]", retry=False)

@pipeline.batcher("warehouse[blue]", size=10, batch_timeout=0.1)
async def load(batch: Batch[dict]) -> None:
    print("loaded", len(batch.messages), flush=True)
    await asyncio.sleep(0.05)

other = Pipeline("quiet", StreamProducer("orders", offset="next"))

@other.processor
async def look(message: Message[bytes]) -> None: ...
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with two pipelines, and the address of a broker with their stream."""
    folder = tmp_path_factory.mktemp("screen")
    (folder / "shop.py").write_text(SHOP)
    lines = b"".join(b'{"n":%d}\n' % number for number in range(5_000))
    with broker_in_thread() as broker:
        line = ("publish", "orders", "-", "--create")
        assert flowstream(*line, url=broker.url, cwd=folder, stdin=lines).code == 0
        yield folder, broker.url


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 24), (200, 50)])
def test_a_run_has_room_and_leaves_a_clean_screen(
    shop: tuple[Path, str], width: int, height: int
) -> None:
    folder, url = shop
    with Terminal("run", "shop", url=url, cwd=folder, width=width, height=height) as terminal:
        terminal.expect(r"no \[green\]sevens")
        terminal.expect(r"warehouse\[blue\]|no room for")
        screen = terminal.seen
        terminal.type("\x03")
        terminal.expect("draining")
        assert terminal.end() == 0
    shown = "".join(line.strip() for line in screen.lines)
    assert NAME in shown or NAME in shown.replace("  ", "")
    assert "quiet" in shown
    assert "…" not in shown
    left = terminal.seen
    assert not left.cursor_hidden
    assert "in flight" not in str(left), "the view is gone"
    assert not re.search(r"\[/?(dim|cyan|bold red)\]", left.everything)
    assert "to continue: flowstream run shop" in left.everything.replace("\n", "")


def test_without_colour_nothing_is_coloured(shop: tuple[Path, str]) -> None:
    folder, url = shop
    env = {"NO_COLOR": "1"}
    with Terminal("run", "shop", url=url, cwd=folder, env=env, width=80, height=24) as terminal:
        terminal.expect(r"in flight")
        terminal.type("\x03")
        assert terminal.end() == 0
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", terminal.raw)


@pytest.mark.parametrize("env", [{"FORCE_COLOR": "1"}, {}], ids=["forced", "plain"])
def test_a_pipe_gets_lines_and_no_live_view(shop: tuple[Path, str], env: dict[str, str]) -> None:
    folder, url = shop
    with Started("run", "shop", url=url, cwd=folder, env=env) as run:
        run.line("loaded", out=True)
        run.signal(signal.SIGINT)
        end = run.end()
    assert end.code == 0
    assert "\x1b[?25l" not in end.err
    assert "\x1b[2K" not in end.err


def test_a_dumb_terminal_gets_lines(shop: tuple[Path, str]) -> None:
    folder, url = shop
    with Terminal("run", "shop", url=url, cwd=folder, env={"TERM": "dumb"}) as terminal:
        terminal.expect(r"starting for|settled|loaded")
        terminal.type("\x03")
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.raw


def test_what_a_handler_prints_goes_where_standard_output_goes(shop: tuple[Path, str]) -> None:
    folder, url = shop
    master, terminal = pty.openpty()
    reader, writer = os.pipe()
    variables = environment(url, {"COLUMNS": "80", "LINES": "24"})
    try:
        run = start(("run", "shop"), (terminal, writer, terminal), folder, variables)
    finally:
        os.close(terminal)
        os.close(writer)
    try:
        with os.fdopen(reader, "rb") as output:
            assert output.readline().startswith(b"loaded ")
            run.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # Linux answers EIO once the other side has closed
                while os.read(master, 65536):
                    pass
            assert b"to continue: flowstream run shop" in output.read()
        assert run.wait(TIMEOUT) == 0
    finally:
        run.kill()
        os.close(master)
