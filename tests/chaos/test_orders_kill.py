"""`kill -9` at random moments: whatever was lost is done again, and only what was lost."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import Runner
from tests.chaos.orders import dead_letters, last_offset, publish, wait_for
from tests.chaos.seeds import new_seed

ORDERS = 20_000
KILLS = 20
DELAY = 0.04
"""Of every batch of 50, two at a time: about 2,000 orders a second."""


@pytest.mark.chaos
@pytest.mark.slow
def test_twenty_kills_leave_the_warehouse_exactly_as_it_should_be(
    runner: Runner, tmp_path: Path
) -> None:
    seed = new_seed()
    chance = random.Random(seed)
    want = publish(runner.url, tmp_path, ORDERS)
    before = -1
    commits = []

    for _ in range(KILLS):
        kill_once(runner, chance)
        after = runner.settled_up_to_the_commit(want)
        assert after >= before, "the committed offset went back"
        commits.append(before := after)

    print(f"committed after each kill: {commits}, in the warehouse: {runner.warehouse.count}")
    assert runner.warehouse.count < len(want.rows), "there was nothing left to lose"
    assert len(set(commits)) > 3, "hardly any run got as far as a commit"

    done = runner.to_the_end()

    assert done.code == 0, done.err
    assert runner.warehouse.rows == want.rows
    assert runner.warehouse.totals == want.totals
    assert runner.settled_up_to_the_commit(want) == last_offset(runner.url) == want.last
    letters = [properties["x-offset"] for properties, _ in dead_letters(runner.url)]
    assert set(letters) == want.rejected  # a replay may publish one again, it never misses one
    (result,) = done.json
    assert result["handled"] == want.last - commits[-1], "resumed behind the committed offset"


def kill_once(runner: Runner, chance: random.Random) -> None:
    """Kill a run: one in five at any moment of its start, the others while it loads orders."""
    stored = runner.warehouse.count
    with runner("slowed", delay=DELAY) as run:
        if chance.random() < 0.2:
            moment = chance.uniform(0, 1.5)
        else:
            wait_for(lambda: runner.warehouse.count > stored or not run.alive())
            moment = chance.uniform(0, 0.4)
        time.sleep(moment)  # the random moment itself; nothing is waited for
        assert run.alive(), run.end().err
        run.signal(signal.SIGKILL)
        assert run.end().code == -signal.SIGKILL
