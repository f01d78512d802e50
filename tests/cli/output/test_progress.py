"""What takes longer than a second says so, and what does not is silent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from flowstream.cli.output import progress
from flowstream.cli.output.progress import Step, doing, drawn_line, progress_shown


def at(step: Step, seconds: float) -> float:
    return step.started + seconds


@pytest.mark.parametrize(
    ("options", "position", "done", "facts"),
    [
        ({}, 0, 0, "4.0 s"),
        ({"unit": "message"}, 0, 0, "0 messages"),
        ({"unit": "message"}, 1, 1, "1 message, 0/s"),
        ({"unit": "message"}, 8000, 8000, "8,000 messages, 2,000/s"),
        ({"unit": "message", "size": 0}, 0, 0, "0 messages"),
        ({"unit": "message", "size": 100}, 0, 0, "0 messages, 0%"),
        ({"unit": "message", "size": 100}, 25, 8, "8 messages, 2/s, 25%, 12 s left"),
        ({"unit": "message", "size": 100}, 120, 120, "120 messages, 30/s, 100%, 0.0 s left"),
        ({"limit": 5.0}, 0, 0, "4 of at most 5 s"),
    ],
)
def test_how_far_it_is(options: dict[str, Any], position: int, done: int, facts: str) -> None:
    step = Step("publishing", **options)
    step.update(position, done)
    assert step.facts(at(step, 4.0)) == facts


@pytest.mark.parametrize("width", [20, 40, 79, 199])
def test_the_line_of_a_terminal_is_never_wider(width: int) -> None:
    step = Step(f"publishing to {'月' * 120}", unit="message", size=100)
    step.update(25, 8)
    line = drawn_line(step, at(step, 4.0), width)
    from rich.cells import cell_len

    assert cell_len(line) <= width
    assert width < 40 or line.endswith("8 messages, 2/s, 25%, 12 s left")


def test_a_bar_where_there_is_room() -> None:
    step = Step("measuring", limit=4.0)
    assert "━" not in drawn_line(step, at(step, 2.0), 40)
    assert "━" * 20 in drawn_line(step, at(step, 2.0), 79)
    assert "\x1b" not in drawn_line(Step("a\x1b[31m"), time.monotonic(), 79)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps are told of, and sooner."""
    monkeypatch.setattr(progress, "PATIENCE", 0.02)
    monkeypatch.setattr(progress, "REFRESH", 0.01)
    with progress_shown():
        yield


def lines(capsys: pytest.CaptureFixture[str], count: int) -> list[str]:
    """Wait for so many lines."""
    said = ""
    while said.count("\n") < count:
        said += capsys.readouterr().err
        time.sleep(0.01)
    return said.splitlines()


@pytest.mark.usefixtures("told")
def test_the_innermost_step_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with doing("waiting"), doing("reading x", unit="message") as step:
        step.update(3)
        (line,) = lines(capsys, 1)
    assert line.startswith("reading x: 3 messages, ")
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("told")
def test_nothing_beside_results(capsys: pytest.CaptureFixture[str]) -> None:
    with doing("waiting"), doing(None):
        time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_what_ends_within_a_second_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown():
        for _ in range(3):
            with doing("waiting"):
                time.sleep(0.15)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("error", [OSError("gone"), ValueError("I/O operation on closed file")])
def test_whoever_reads_may_leave(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tried = []

    def note(text: str) -> None:
        tried.append(text)
        raise error

    monkeypatch.setattr(progress, "note", note)
    with doing("waiting"):
        while not tried:
            time.sleep(0.01)
    assert len(tried) == 1
