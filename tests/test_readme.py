"""The README's code runs as it stands there."""

from __future__ import annotations

import sys
import types

import pytest

from flowstream import Batch, Message, Pipeline
from flowstream.testing import broker
from tests.documents import ROOT, blocks

BLOCKS = [block.source for block in blocks(ROOT / "README.md") if block.language == "python"]


def module(source: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("readme_block")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(source, "README.md", "exec"), made.__dict__)
    return made


async def test_the_first_pipeline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = module(BLOCKS[0], monkeypatch)
    assert isinstance(first.pipeline, Pipeline)
    order = first.Order(order_id=1, customer_id=1, date="1997-01-01", quantity=1, amount="0.00")
    message = Message.new(order)
    await first.validate(message)
    assert message.failed == "amount must be positive"
    first.load(Batch.new(order.model_copy(update={"amount": 2}), order))
    assert capsys.readouterr().out.startswith("2 orders, 2")


async def test_the_client(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = module(BLOCKS[1], monkeypatch)
    async with broker() as running:
        await client.copy(running.url)
    assert capsys.readouterr().out.strip() == "0 [b'hello', b'world']"
