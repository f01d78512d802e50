"""Records as text, JSON and logfmt, their fields, and repeats that are left out."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowstream.cli.output.logs import FORMATTERS, KINDS, RepeatFilter, StderrHandler
from tests.cli.command import flowstream


def record(message: str = "commit of %s failed", *arguments: object, name: str = "flowstream.x",
           **extra: Any) -> logging.LogRecord:  # fmt: skip
    made = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, arguments, None)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    vars(made).update(extra)
    return made


FIELDS: dict[str, Any] = {"offset": 7, "user": 'a "b"', "pipeline": "orders", "stage": None}


def test_json_has_one_object_with_the_fields() -> None:
    text = FORMATTERS["json"]().format(record("of %s", "orders@7", **FIELDS))
    assert json.loads(text) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "flowstream.x",
        "message": "of orders@7",
        "pipeline": "orders",
        "offset": 7,
        "user": 'a "b"',
    }


def test_logfmt_quotes_what_needs_it() -> None:
    text = FORMATTERS["logfmt"]().format(record("of %s\nnext", "orders=7", **FIELDS, empty=""))
    assert text == (
        "time=2023-11-14T22:13:20.250Z level=warning logger=flowstream.x "
        r'message="of orders=7\nnext" pipeline=orders offset=7 user="a \"b\"" empty=""'
    )


def test_text_shows_the_fields_behind_the_message() -> None:
    text = FORMATTERS["text"]().format(record("of %s", "orders", **FIELDS, left_out=1234))
    head = "WARNING flowstream.x: of orders "
    assert text.partition(head)[2] == (
        r'[pipeline=orders offset=7 user="a \"b\""] (1,234 similar records left out)'
    )


@pytest.mark.parametrize("format", FORMATTERS)
def test_an_exception_is_told(format: str) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    text = FORMATTERS[format]().format(made)
    assert "ValueError: no" in text
    assert format == "text" or "\n" not in text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_repeats_are_left_out_and_counted() -> None:
    clock = Clock()
    repeats = RepeatFilter(2, 10.0, clock)
    passed = [repeats.filter(record("of %s", n)) for n in range(5)]
    assert passed == [True, True, False, False, False]
    assert repeats.filter(record("of another"))
    assert repeats.filter(record("of %s", 1, name="flowstream.y"))
    clock.now = 10.0
    later = record("of %s", 9)
    assert repeats.filter(later)
    assert vars(later)["left_out"] == 3
    assert "left_out" not in vars(record("of %s", 10))


def test_what_was_left_out_to_the_end_is_told() -> None:
    repeats = RepeatFilter(1, 10.0, Clock())
    for number in range(4):
        repeats.filter(record("of %s", number))
    repeats.filter(record("alone"))
    (last,) = repeats.rest()
    assert (last.getMessage(), vars(last)["left_out"]) == ("of 3", 2)


def test_kinds_are_bounded() -> None:
    repeats = RepeatFilter(1, 10.0, Clock())
    for number in range(3 * KINDS):
        assert repeats.filter(record(f"message {number}"))
    assert len(repeats._kinds) == KINDS
    assert not repeats.filter(record(f"message {3 * KINDS - 1}"))


def test_commands_notes_are_never_left_out() -> None:
    repeats = RepeatFilter(1, 10.0, Clock())
    assert all(repeats.filter(record("%s", 1, name="flowstream.cli")) for _ in range(10))


def test_the_handler_writes_to_what_stderr_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    handler = StderrHandler(RepeatFilter(1))
    handler.setFormatter(FORMATTERS["logfmt"]())
    for number in range(3):
        handler.handle(record("of %s", number))
    handler.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert 'message="of 2"' in lines[1]
    assert "left_out=1" in lines[1]


@pytest.mark.slow
def test_importing_the_library_leaves_the_root_logger_alone() -> None:
    code = """
import logging, sys, pkgutil, importlib, flowstream
for name in flowstream.__all__:
    getattr(flowstream, name)
for found in pkgutil.walk_packages(flowstream.__path__, "flowstream."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
root = logging.getLogger()
assert root.handlers == [] and root.level == logging.WARNING, (root.handlers, root.level)
for name, log in logging.root.manager.loggerDict.items():
    if name.startswith("flowstream") and isinstance(log, logging.Logger):
        assert log.level == logging.NOTSET and log.propagate and not log.handlers, name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


MODULE = """
import logging
from flowstream import IterableProducer, Message, Pipeline
log = logging.getLogger("shop")
pipeline = Pipeline("orders", IterableProducer([b"%d" % n for n in range(40)]))

@pipeline.processor
def see(message: Message[bytes]) -> None:
    log.info("saw a message", extra={"size": len(message.body)})
    if message.data == b"33":
        raise ValueError("no thirty-threes")
"""


def test_a_run_writes_one_json_object_per_line(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    line = ("run", "shop", "--log-level", "info", "--log-format", "json")
    result = flowstream(*line, cwd=tmp_path)
    assert result.code == 7
    records = [json.loads(line) for line in result.err.splitlines()]
    seen = [each for each in records if each["message"] == "saw a message"]
    place = {"pipeline": "orders", "stage": "processor", "stream": "iterable"}
    for number in range(5):
        assert seen[number].items() >= {**place, "offset": number, "size": 1}.items()
    assert (len(seen), seen[5]["offset"], seen[5]["left_out"]) == (6, 33, 28)
    mine = [each for each in records if each["logger"] == "flowstream.pipeline"]
    halted, left = (each for each in mine if each["level"] == "error")
    assert left.items() >= {"pipeline": "orders", "stream": "iterable", "lost": 7}.items()
    assert halted.items() >= {**place, "offset": 33}.items()
    (error,) = (each for each in records if "exit_code" in each)
    assert (error["level"], error["exit_code"]) == ("error", 7)


STRAY = """
import threading
import warnings
from flowstream import IterableProducer, Message, Pipeline

warnings.warn("old option")
pipeline = Pipeline("orders", IterableProducer([b"1", b"2"]))

class Closing:
    def __del__(self):
        raise OSError("cannot close")

def refresh():
    raise ConnectionError("no catalogue")

async def forgotten(): ...

@pipeline.processor
async def see(message: Message[bytes]) -> None:
    if message.data == b"1":
        Closing()
        forgotten()
        thread = threading.Thread(target=refresh, name="catalogue")
        thread.start()
        thread.join()
"""


@pytest.mark.parametrize("format", ["json", "logfmt", "text"])
def test_what_python_would_print_becomes_a_record(tmp_path: Path, format: str) -> None:
    (tmp_path / "shop.py").write_text(STRAY)
    result = flowstream("run", "shop", "--log-format", format, cwd=tmp_path)
    assert result.code == 0
    said = [
        ("py.warnings", "UserWarning: old option"),
        ("py.warnings", "coroutine 'forgotten' was never awaited"),
        ("flowstream.run", "an exception ended thread 'catalogue': ConnectionError: no catalogue"),
        ("flowstream.run", "OSError: cannot close"),
    ]
    if format == "json":
        records = [json.loads(line) for line in result.err.splitlines()]
        texts = [(each["logger"], each["message"]) for each in records]
        raised = [each for each in records if each["level"] == "error"]
        assert all("Traceback" in each["exception"] for each in raised)
    else:
        texts = [("", line) for line in result.err.splitlines()]
        if format == "logfmt":
            assert all(line.startswith("time=") for _, line in texts)
    for logger, text in said:
        assert any(text in line and logger in (of or line) for of, line in texts), result.err


def test_a_level_that_is_none(tmp_path: Path) -> None:
    result = flowstream("run", "shop", "--log-level", "loud", cwd=tmp_path)
    assert result.code == 2
    assert "'loud' is not one of" in result.err
