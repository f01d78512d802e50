"""Log records say where they are about in fields, so that they can be searched by them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flowstream.errors import Halted
from flowstream.pipeline import IterableProducer, Message, Pipeline

ROOMS = [Path(__file__).parents[2] / "flowstream" / room for room in ("pipeline", "connectors")]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
FILES = sorted(file for room in ROOMS for file in room.rglob("*.py"))


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


@pytest.mark.parametrize("file", [file for file in FILES if calls(file)], ids=lambda f: f.name)
def test_every_record_has_fields(file: Path) -> None:
    for call in calls(file):
        assert "extra" in {keyword.arg for keyword in call.keywords}, f"{file}:{call.lineno}"


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
