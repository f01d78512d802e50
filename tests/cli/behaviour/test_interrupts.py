"""Ctrl-C ends every command with 130, except those for which it is the regular end: with 0.

The table has every command that can take long, at work and while it waits for a broker that is
silent. What is left on the terminal is clean, and the cursor is there.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowstream.cli.output.progress import SPINNER
from flowstream.testing import broker_in_thread
from tests.cli.command import Started, Terminal, flowstream
from tests.cli.modules import numbered, write_module
from tests.cli.rows import rows
from tests.cli.tree import leaves

pytestmark = pytest.mark.timeout(120)

COUNT = 2_000
"""Messages of the stream that is read."""


@dataclass(frozen=True, slots=True)
class Row:
    """A command at work: what is seen when it is, what Ctrl-C ends it with, and says."""

    line: str
    seen: str
    code: int
    says: str = ""


AT_WORK = (
    Row("run shop", r"in flight", 0, "to continue: flowstream run shop"),
    Row("broker --port 0 --memory", r"0 connections", 0, "broker stopped after"),
    Row("tail s --from first", r"\{\"n\":0\}", 0),
    Row("top --http 127.0.0.1:9", r"no answer for", 0),
    Row("publish s some.ndjson --loop --rate 50", r"publishing to s", 0,
        "confirmed in s"),
    Row("publish s some.ndjson --rate 50", r"publishing to s", 130,
        "continue with --from-line"),
    Row("bench --seconds 30", r"measuring publish", 130, "the stream was deleted"),
    Row("offsets reset r s --to first --watch 60", r"checking whether r is running", 130),
)  # fmt: skip

WAITING = {
    " ".join(words): " ".join((*words, row.waiting)).strip()
    for words, row in rows().items()
    if row.waiting is not None
}


def test_every_command_that_connects_has_a_line() -> None:
    connects = {
        " ".join(words) for words, it in leaves() if any(p.name == "url" for p in it.params)
    }
    assert WAITING.keys() == connects


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a module and a file, and the address of a broker with their stream."""
    folder = tmp_path_factory.mktemp("interrupts")
    write_module(folder, "s", module="shop")
    (folder / "some.ndjson").write_bytes(numbered(COUNT))
    with broker_in_thread() as broker:
        line = ("publish", "s", "some.ndjson", "--create")
        assert flowstream(*line, url=broker.url, cwd=folder).code == 0
        yield folder, broker.url


def on_a_terminal(line: str, url: str, folder: Path) -> Terminal:
    return Terminal(*line.split(), url=url, cwd=folder, width=80, height=24)


def clean(terminal: Terminal) -> str:
    """What is left on the terminal."""
    seen = terminal.seen
    assert not seen.cursor_hidden
    assert not seen.alternate
    text = seen.everything
    assert "Traceback" not in text
    assert "[/" not in text
    assert not set(SPINNER) & set(text), text
    return text


@pytest.mark.slow
def test_at_work(served: tuple[Path, str]) -> None:
    """All at the same time: each has to be waited for."""
    folder, url = served
    with ExitStack() as stack:
        for row, terminal in [
            (row, stack.enter_context(on_a_terminal(row.line, url, folder))) for row in AT_WORK
        ]:
            terminal.expect(row.seen)
            terminal.type("\x03")
            assert terminal.end() == row.code, f"{row}: {terminal.screen}"
            assert row.says in clean(terminal), row


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a broker that never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(len(WAITING))
        yield f"rabbitmq-stream://guest:guest@127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_while_it_waits_for_a_broker(served: tuple[Path, str], silent: str) -> None:
    with ExitStack() as stack:
        for name, terminal in [
            (name, stack.enter_context(on_a_terminal(line, silent, served[0])))
            for name, line in WAITING.items()
        ]:
            terminal.expect(r"waiting for the broker at 127\.0\.0\.1:\d+|starting")
            terminal.type("\x03")
            assert terminal.end() == (0 if name == "run" else 130), f"{name}: {terminal.screen}"
            clean(terminal)


BLOCKED = """
import time
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("blocked", IterableProducer([b"1"]))

@pipeline.processor
async def handle(message: Message[bytes]) -> None:
    open("blocks", "w").close()
    time.sleep(300)
"""


@pytest.mark.slow
@pytest.mark.parametrize("third", [True, False])
def test_a_handler_that_blocks_the_event_loop(third: bool, tmp_path: Path) -> None:
    """The event loop does not hear signals, and the run ends nevertheless."""
    (tmp_path / "blocked.py").write_text(BLOCKED)
    with Started("run", "blocked", cwd=tmp_path, fresh=True) as run:
        run.line("the event loop has been blocked")
        run.signal(signal.SIGTERM)
        run.line("a handler blocks the event loop, so nothing drains; repeat to end at once")
        run.signal(signal.SIGINT)
        if third:
            run.signal(signal.SIGINT)
        assert run.end().code == 130
