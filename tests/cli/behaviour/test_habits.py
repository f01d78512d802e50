"""What every command does the same way: Ctrl-C, a reader that leaves, colour, completion."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.cli.event_loop import run_async
from tests.cli.command import (
    COMMAND,
    TIMEOUT,
    Result,
    Started,
    Terminal,
    environment,
    flowstream,
    start,
)
from tests.cli.modules import write_module

WAITING = [
    ("streams", "stats", "x"),
    ("streams", "create", "x"),
    ("offsets", "get", "x", "x"),
    ("peek", "x"),
    ("dead-letters", "list", "x"),
    ("check", "shop", "--connect"),
    ("doctor",),
]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port where somebody listens and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(TIMEOUT)
        yield listener


@pytest.mark.parametrize("command", WAITING, ids=" ".join)
def test_ctrl_c_ends_with_130_and_without_a_word(
    silent: socket.socket, tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_module(tmp_path, "x")
    port = silent.getsockname()[1]
    url = f"rabbitmq-stream://guest:guest@127.0.0.1:{port}"
    fresh = command == ("doctor",)
    with Started(*command, url=url, cwd=tmp_path, fresh=fresh) as waiting, silent.accept()[0]:
        waiting.signal(signal.SIGINT)
        assert waiting.end() == Result(130, "", "")


@pytest.mark.parametrize("answer", ["\x03", "\x04", "n\n"], ids=["ctrl-c", "ctrl-d", "no"])
def test_a_question_that_is_not_answered_with_yes(answer: str) -> None:
    with Terminal("streams", "delete", "x", url="rabbitmq-stream://localhost:1") as terminal:
        terminal.expect("Delete x with all messages?")
        while terminal.process.poll() is None:  # a Ctrl-C just before input() begins is not seen
            terminal.type(answer)
            with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
                terminal.process.wait(5)
        assert terminal.end() == 130
    assert "nothing was changed" in terminal.screen
    assert "Traceback" not in terminal.screen


PRINTING = [
    ("--help",),
    ("exit-codes",),
    ("config",),
    ("config", "--json"),
    ("graph", "shop"),
    ("check", "shop"),
]


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_module(tmp_path, "x")
    reader, writer = os.pipe()
    os.close(reader)
    fresh = command == ("check", "shop")
    try:
        with (tmp_path / "err").open("wb") as err, Path(os.devnull).open("rb") as stdin:
            standard = stdin.fileno(), writer, err.fileno()
            process = start(command, standard, tmp_path, environment(None), fresh=fresh)
            code = process.wait(TIMEOUT)
    finally:
        os.close(writer)
    assert "Error" not in (tmp_path / "err").read_text()
    assert code == 0


@pytest.mark.parametrize("command", [("config",), ("check", "shop"), ("graph", "shop")])
def test_no_color_is_honoured_on_a_terminal(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_module(tmp_path, "x")
    with Terminal(*command, cwd=tmp_path, env={"NO_COLOR": "1"}) as plain:
        assert plain.end() == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", plain.raw)


def test_standard_streams_may_be_closed() -> None:
    """As some supervisors start their programs."""
    typed = f"{shlex.join(COMMAND)} streams stats s --url rabbitmq-stream://127.0.0.1:9 <&- >&-"
    done = subprocess.run(
        ["bash", "-c", typed], stderr=subprocess.PIPE, env=environment(None), timeout=TIMEOUT
    )
    assert done.returncode == 4, done.stderr
    assert b"error: no broker at" in done.stderr


def complete(words: str) -> list[str]:
    env = {
        "_FLOWSTREAM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    return flowstream(env=env).out.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("flowstream che", ["check"]),
        ("flowstream offsets g", ["get"]),
        ("flowstream run --log-f", ["--log-format"]),
        ("flowstream run --log-format j", ["json"]),
    ],
)
def test_words_are_completed(words: str, found: list[str]) -> None:
    assert complete(words) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_is_shown(shell: str) -> None:
    result = flowstream(env={"_FLOWSTREAM_COMPLETE": f"source_{shell}"})
    assert result.code == 0
    assert f"_FLOWSTREAM_COMPLETE=complete_{shell}" in result.out


def test_the_completion_of_the_shell_it_is_typed_in_is_shown() -> None:
    # bash replaces itself by its last command, and then there is no shell to be asked about
    typed = f"{shlex.join(COMMAND)} --show-completion; exit $?"
    done = subprocess.run(
        ["bash", "-c", typed], capture_output=True, env=environment(None), timeout=TIMEOUT
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"_FLOWSTREAM_COMPLETE=complete_bash" in done.stdout


def test_commands_run_on_uvloop() -> None:
    async def loop() -> str:
        import asyncio

        return type(asyncio.get_running_loop()).__module__

    assert run_async(loop).startswith("uvloop")
