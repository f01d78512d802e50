"""The dead letters that the live page shows: the newest that wait, one whole, and replayed once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowstream import Environment, Message
from flowstream.cli.connection.connect import Connection
from flowstream.cli.dead_letters import live_page
from flowstream.cli.dead_letters.live_page import LivePageDeadLetters
from flowstream.connectors.dead_letter import dead_letter
from flowstream.pipeline import Failure
from tests.brokers.running import Broker

pytestmark = [pytest.mark.anyio, pytest.mark.every_broker]

COUNT = 60


class Buried:
    """COUNT messages and a letter for each: letter n is of the message n."""

    def __init__(self, url: str, stream: str, environment: Environment) -> None:
        self.url = url
        self.stream = stream
        self.dead = f"{stream}.dead"
        self.environment = environment

    async def bury(self) -> None:
        for name in (self.stream, self.dead):
            await self.environment.create_stream(name)
        bodies = [b'{"n": %d, "name": "caf\xc3\xa9 \xff"}' % number for number in range(COUNT)]
        async with self.environment.publisher(self.stream) as publisher:
            await publisher.publish_many(bodies)
        async with self.environment.publisher(self.dead) as publisher:
            await publisher.publish_many(
                [self._letter(number, body) for number, body in enumerate(bodies)]
            )

    def _letter(self, number: int, body: bytes) -> bytes:
        message: Message[Any] = Message.new(None, raw=body, stream=self.stream, offset=number)
        return dead_letter("p", Failure(message, f"reason {number}", error=ValueError(number)))

    def letters(self, *, masked: bool = False) -> LivePageDeadLetters:
        hidden = frozenset({self.dead} if masked else ())
        return LivePageDeadLetters(Connection(self.url), {"p": self.dead}, hidden)


@pytest.fixture
async def buried(broker: Broker, stream_name: str) -> AsyncIterator[Buried]:
    async with Environment(broker.url) as environment:
        buried = Buried(broker.url, stream_name, environment)
        await buried.bury()
        yield buried


async def test_the_newest_are_listed(buried: Buried, capsys: pytest.CaptureFixture[str]) -> None:
    found = await buried.letters().waiting(buried.dead, 50)
    assert (found["waiting"], found["exact"]) == (COUNT, True)
    assert [row["offset"] for row in found["letters"]] == [*range(COUNT - 1, COUNT - 51, -1)]
    assert found["letters"][0]["reason"] == f"reason {COUNT - 1}"
    assert found["letters"][0]["source"] == f"{buried.stream}@{COUNT - 1}"
    assert capsys.readouterr() == ("", "")


async def test_a_list_looks_at_the_end_of_a_long_stream(
    buried: Buried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_page, "LOOKED_AT", 20)
    found = await buried.letters().waiting(buried.dead, 50)
    assert (found["waiting"], found["exact"], len(found["letters"])) == (COUNT, False, 20)


async def test_a_letter_is_text_of_a_bounded_size(buried: Buried) -> None:
    letters = buried.letters()
    found = await letters.letter(buried.dead, 7, 1_000)
    assert found is not None
    assert found["body"] == '{"n": 7, "name": "café \\xff"}'
    assert (found["error"], found["size"]) == ("ValueError", 27)
    assert "ValueError: 7" in found["traceback"]
    short = await letters.letter(buried.dead, 7, 5)
    assert short is not None
    assert (short["body"], short["size"]) == ('{"n":', 27)
    assert await letters.letter(buried.dead, COUNT, 1_000) is None


async def test_a_pipeline_that_masks_shows_no_body(buried: Buried) -> None:
    found = await buried.letters(masked=True).letter(buried.dead, 7, 1_000)
    assert found is not None
    assert found["body"] is None
    assert "café" not in str(found)
    assert "masks" in found["missing"]


async def test_a_replay_is_done_once(buried: Buried) -> None:
    letters = buried.letters()
    assert await letters.replay(buried.dead, [3, 9, 3]) == {
        "replayed": {buried.stream: 2},
        "left": {},
    }
    done = await letters.replay(buried.dead, None)
    assert done == {"replayed": {buried.stream: COUNT}, "left": {}}
    assert await letters.waiting(buried.dead, 50) == {
        "waiting": 0,
        "exact": True,
        "letters": [],
    }
    assert await letters.replay(buried.dead, None) == {"replayed": {}, "left": {}}
