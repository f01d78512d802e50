"""Log records say where they are about in fields, so that they can be searched by them."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowstream.errors import Halted
from flowstream.pipeline import Batch, IterableProducer, Message, Pipeline, add_place

log = logging.getLogger("shop")

ROOMS = [Path(__file__).parents[3] / "flowstream" / room for room in ("pipeline", "connectors")]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
FILES = sorted(file for room in ROOMS for file in room.rglob("*.py") if "log." in file.read_text())


def calls(file: Path) -> list[ast.Call]:
    """Calls of `log.warning(...)` and the like."""
    return [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"log", "_log"}
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_record_has_fields(file: Path) -> None:
    for call in calls(file):
        assert "extra" in {keyword.arg for keyword in call.keywords}, f"{file}:{call.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_record_has_a_template_without_words(file: Path) -> None:
    """Collectors such as Sentry take all records of one template for the same thing."""
    for call in calls(file):
        if call.args and isinstance(call.args[0], ast.Constant):
            assert re.search(r"\w{2}", str(call.args[0].value)), f"{file}:{call.lineno}"


async def test_a_halt_says_where(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("orders", IterableProducer([b"0", b"1", b"2"]))

    @pipeline.processor
    async def refuse(message: Message[bytes]) -> None:
        if message.data == b"1":
            message.fail("no ones")

    with pytest.raises(Halted):
        await pipeline.run()
    (record,) = (each for each in caplog.records if "halted" in each.getMessage())
    fields = ("pipeline", "stage", "stream", "offset")
    found = {name: vars(record)[name] for name in fields}
    assert found == {
        "pipeline": "orders",
        "stage": "processor",
        "stream": "iterable",
        "offset": 1,
    }


class Kept(logging.Handler):
    """Keeps records with their places."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(add_place)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def told(kept: Kept) -> list[tuple[Any, ...]]:
    names = ("pipeline", "stage", "stream", "offset")
    return [(r.getMessage(), *(vars(r).get(name) for name in names)) for r in kept.records]


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "threads"])
async def test_what_a_handler_logs_has_its_place(kept: Kept, threaded: bool) -> None:
    pipeline = Pipeline("orders", IterableProducer([b"a", b"b", b"c"]))

    def see(message: Message[bytes]) -> None:
        log.warning("saw %s", message.data.decode())

    async def see_async(message: Message[bytes]) -> None:
        see(message)

    pipeline.processor(see if threaded else see_async)

    @pipeline.batcher("load", size=3)
    def load(batch: Batch[bytes]) -> None:
        log.warning("loading")

    await pipeline.run()
    log.warning("over")
    assert told(kept) == [
        ("saw a", "orders", "processor", "iterable", 0),
        ("saw b", "orders", "processor", "iterable", 1),
        ("saw c", "orders", "processor", "iterable", 2),
        ("loading", "orders", "load", None, None),
        ("over", None, None, None, None),
    ]


async def test_fields_that_a_record_has_are_its_own(kept: Kept) -> None:
    pipeline = Pipeline("orders", IterableProducer([b"a"]))

    @pipeline.processor
    async def see(message: Message[bytes]) -> None:
        log.warning("saw", extra={"offset": 7})

    await pipeline.run()
    assert told(kept) == [("saw", "orders", "processor", "iterable", 7)]
