"""Eight processors: each customer's orders stay in order, and no commit runs ahead."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import anyio
import pytest

from flowstream import Environment
from tests.chaos.conftest import Run, Runner
from tests.chaos.orders import last_offset, publish
from tests.chaos.seeds import new_seed

ORDERS = 12_000


@pytest.mark.chaos
@pytest.mark.slow
def test_order_per_customer_holds_and_commits_never_pass_what_is_unsettled(
    runner: Runner, tmp_path: Path
) -> None:
    seed = new_seed()
    want = publish(runner.url, tmp_path, ORDERS)
    diary = runner.warehouse.path
    diary.touch()

    with runner("ordered", "--until-idle", "1", "--json", seed=seed) as run:
        commits = anyio.run(watch, runner.url, run, diary)
        done = run.end()

    assert done.code == 0, done.err
    assert done.json[0]["settled"] == {"ok": ORDERS}
    print(f"commits seen: {len(commits)}, {commits[:3]} .. {commits[-3:]}")
    assert commits == sorted(commits)
    assert len(commits) >= 5, "the commits were not seen on their way"
    assert commits[-1] == want.last == last_offset(runner.url)
    check_order(diary)


async def watch(url: str, run: Run, diary: Path) -> list[int]:
    """The different offsets committed while it ran; none was past a batch still in its handler."""
    seen: list[int] = []
    reader = Ended(diary)
    async with Environment(url) as environment:
        ended = False
        while not ended:
            ended = not run.alive()
            offset = await environment.query_offset("orders", "orders")
            if offset is not None and offset not in seen[-1:]:
                seen.append(offset)
                gap = reader.first_gap()  # read after the offset was: it can only be further
                assert gap > offset, f"{offset} is committed, {gap} is not settled"
            await anyio.sleep(0.01)
    return seen


class Ended:
    """The offsets whose batch handler has returned, as the diary tells them."""

    def __init__(self, diary: Path) -> None:
        self._diary = diary
        self._read = 0
        self._offsets: set[int] = set()
        self._gap = 0

    def first_gap(self) -> int:
        with self._diary.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        for what, messages in map(json.loads, whole.splitlines()):
            if what == "end":
                self._offsets.update(offset for offset, _ in messages)
        while self._gap in self._offsets:
            self._gap += 1
        return self._gap


def check_order(diary: Path) -> None:
    """Each customer's orders in the stream's order, and in one batch at a time."""
    orders: dict[int, list[int]] = defaultdict(list)
    busy: set[int] = set()
    side_by_side = 0
    for what, messages in map(json.loads, diary.read_text().splitlines()):
        customers = {customer for _, customer in messages}
        if what == "end":
            busy -= customers
            continue
        assert not busy & customers, "two batches of one customer at the same time"
        side_by_side += bool(busy)
        busy |= customers
        for offset, customer in messages:
            orders[customer].append(offset)
    assert not busy
    assert side_by_side > 10, "batches were not handled at the same time"
    assert sorted(offset for each in orders.values() for offset in each) == list(range(ORDERS))
    assert all(each == sorted(each) for each in orders.values())
    assert any(len(each) > 5 for each in orders.values())
