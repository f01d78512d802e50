"""Dead letters over HTTP: bounded, for the page alone, and replayed only where that is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest

from flowstream.errors import StreamDoesNotExist
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, Request, Response, dead_letters
from flowstream.monitor.dead_letters import MAX_BODY, MAX_LISTED, MAX_REPLAYED

pytestmark = pytest.mark.anyio

HOST = {"host": "127.0.0.1:9464"}
GOOD = {**HOST, "content-type": "application/json"}
PATH = "/api/dead-letters"


class Fake:
    """Letters of the pipeline "orders", and what was asked of them."""

    streams: Mapping[str, str] = {"orders": "orders.dead"}

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.hangs = False
        self.busy = self.most_busy = 0

    async def _at_work(self, *asked: Any) -> None:
        self.asked.append(asked)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        await anyio.sleep(0)
        if self.hangs:
            await anyio.sleep_forever()
        self.busy -= 1
        if self.error is not None:
            raise self.error

    async def waiting(self, stream: str, most: int) -> dict[str, Any]:
        await self._at_work("waiting", stream, most)
        return {"waiting": 1, "letters": [{"offset": 7}]}

    async def letter(self, stream: str, offset: int, most: int) -> dict[str, Any] | None:
        await self._at_work("letter", stream, offset, most)
        return {"offset": offset, "body": "<script>"} if offset == 7 else None

    async def replay(self, stream: str, offsets: Sequence[int] | None) -> dict[str, Any]:
        await self._at_work("replay", stream, offsets)
        return {"replayed": {"orders": 1}, "left": {}}


class Box:
    """A monitor with letters."""

    def __init__(self, *, control: bool = True) -> None:
        self.letters, self.board = Fake(), Board()
        self.board.expect("orders")
        self._monitor = Monitor(Metrics(), self.board, control=control, dead_letters=self.letters)

    async def get(self, headers: dict[str, str] = HOST, **query: str) -> Response:
        asked = {"pipeline": "orders", **query}
        return await self._monitor.answer(Request("GET", PATH, asked, headers, peer="10.0.0.7"))

    async def post(self, asked: Any, headers: dict[str, str] = GOOD) -> Response:
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        return await self._monitor.answer(Request("POST", PATH, {}, headers, body, peer="10.0.0.7"))


async def test_a_list_and_a_letter() -> None:
    box = Box(control=False)
    answer = await box.get()
    assert (answer.status, answer.content_type) == (200, "application/json")
    listed = {"stream": "orders.dead", "waiting": 1, "letters": [{"offset": 7}]}
    assert json.loads(answer.body) == listed
    assert json.loads((await box.get(offset="7")).body)["body"] == "<script>"
    assert box.letters.asked == [
        ("waiting", "orders.dead", MAX_LISTED),
        ("letter", "orders.dead", 7, MAX_BODY),
    ]
    assert (await box.get(offset="8")).status == 404
    assert (await box.get(pipeline="other")).status == 404


@pytest.mark.parametrize("offset", ["", "-1", "x", "1e3", "٣", "9" * 30])
async def test_an_offset_is_a_number(offset: str) -> None:
    box = Box()
    assert (await box.get(offset=offset)).status == 400
    assert box.letters.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example:9464"},
        {"host": "evil.example:9464", "origin": "http://evil.example:9464"},
        {"host": ""},
    ],
)
async def test_other_sites_get_no_bodies_and_replay_nothing(headers: dict[str, str]) -> None:
    box = Box()
    assert (await box.get({**HOST, **headers})).status == 403
    assert (await box.get({**HOST, **headers}, offset="7")).status == 403
    asked = {"pipeline": "orders", "offsets": "waiting"}
    assert (await box.post(asked, {**GOOD, **headers})).status == 403
    assert (await box.post(asked, {**HOST, "content-type": "text/plain"})).status == 415
    assert box.letters.asked == []


async def test_whoever_opens_the_address_may_read() -> None:
    assert (await Box().get({**HOST, "sec-fetch-site": "none"})).status == 200


async def test_replays_are_off_unless_allowed() -> None:
    box = Box(control=False)
    answer = await box.post({"pipeline": "orders", "offsets": "waiting"})
    assert (answer.status, b"--http-control" in answer.body) == (403, True)
    assert box.letters.asked == []


async def test_a_replay_is_done_and_written_down() -> None:
    box = Box()
    assert (await box.post({"pipeline": "orders", "offsets": [7, 9]})).status == 200
    answer = await box.post({"pipeline": "orders", "offsets": "waiting"})
    assert json.loads(answer.body) == {"replayed": {"orders": 1}, "left": {}}
    assert box.letters.asked == [
        ("replay", "orders.dead", [7, 9]),
        ("replay", "orders.dead", None),
    ]
    (event,) = box.board.events.newest()
    assert event["text"] == "1 dead letter of orders.dead replayed by the live page (10.0.0.7)"
    assert (event["pipeline"], event["count"]) == ("orders", 2)


@pytest.mark.parametrize(
    "offsets",
    [None, [], "all", 7, [-1], [1.5], ["7"], [True], [1 << 62], [*range(MAX_REPLAYED + 1)]],
)
async def test_offsets_to_replay_are_checked(offsets: Any) -> None:
    box = Box()
    answer = await box.post({"pipeline": "orders", "offsets": offsets})
    assert (answer.status, b"waiting" in answer.body) == (400, True)
    assert (await box.post({"pipeline": [1], "offsets": "waiting"})).status == 404
    assert (await box.post(b"[]")).status == 400
    assert box.letters.asked == []


async def test_what_the_broker_refuses_is_told() -> None:
    box = Box()
    box.letters.error = StreamDoesNotExist("orders.dead does not exist")
    answer = await box.get()
    assert (answer.status, answer.body) == (502, b"orders.dead does not exist\n")


async def test_one_at_a_time_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(box.get)
    assert box.letters.most_busy == 1
    monkeypatch.setattr(dead_letters, "TIMEOUT", 0.05)
    box.letters.hangs = True
    assert (await box.get()).status == 504


async def test_without_letters_there_is_no_such_page() -> None:
    monitor = Monitor(Metrics(), Board())
    assert (await monitor.answer(Request("GET", PATH, {}, HOST))).status == 404
