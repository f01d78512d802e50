"""SIGTERM in the middle: everything taken in is finished, or the deadline ends it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from flowstream.cli.exit_codes import ExitCode
from tests.chaos.conftest import Runner
from tests.chaos.orders import publish, wait_for

ORDERS = 20_000
DRAIN_TIMEOUT = 10.0


@pytest.mark.chaos
def test_sigterm_drains_what_was_taken_and_commits_exactly_that(
    runner: Runner, tmp_path: Path
) -> None:
    want = publish(runner.url, tmp_path, ORDERS)

    with runner("slowed", "--json", delay=0.01, timeout=DRAIN_TIMEOUT) as run:
        wait_for(lambda: runner.warehouse.count > 1000)
        assert run.alive()
        asked = time.monotonic()
        run.signal(signal.SIGTERM)
        done = run.end()
        took = time.monotonic() - asked

    assert done.code == ExitCode.OK, done.err
    assert took < DRAIN_TIMEOUT
    (result,) = done.json
    assert result["reason"] == "stopped"
    assert result["unsettled"] == 0
    offset = runner.settled_up_to_the_commit(want)
    print(f"drained in {took:.2f} s, committed {offset}, handled {result['handled']}")
    assert 1000 < offset < want.last, "it was not in the middle"
    settled = runner.warehouse.rows.keys() | {o for o in want.rejected if o <= offset}
    assert settled == set(range(offset + 1))
    assert result["handled"] == offset + 1

    assert runner.to_the_end().code == ExitCode.OK
    assert runner.warehouse.rows == want.rows


@pytest.mark.chaos
@pytest.mark.parametrize("handler", ["process", "batch"])
def test_a_handler_that_hangs_is_ended_by_the_deadline_and_its_message_is_not_committed(
    runner: Runner, tmp_path: Path, handler: str
) -> None:
    want = publish(runner.url, tmp_path, 5000)
    hang_at = next(offset for offset in range(2000, 5000) if offset in want.rows)
    hung = tmp_path / "hung"
    options = {"hang": handler, "hang_at": hang_at, "hung": hung, "timeout": 1.5}

    with runner("slowed", "--json", **options) as run:
        wait_for(hung.exists)
        asked = time.monotonic()
        run.signal(signal.SIGTERM)
        done = run.end()
        took = time.monotonic() - asked

    assert done.code == ExitCode.DRAIN_TIMEOUT, done.err
    assert "did not drain within 1.5 s" in done.err
    assert "Traceback" not in done.err
    assert 1.4 < took < 1.5 + 5
    offset = runner.settled_up_to_the_commit(want)
    print(f"ended after {took:.2f} s, hung at {hang_at}, committed {offset}")
    assert offset < hang_at
    assert hang_at not in runner.warehouse.rows
    (result,) = done.json
    assert result["reason"] == "drain timeout"
    assert result["unsettled"] > 0

    assert runner.to_the_end().code == ExitCode.OK
    assert runner.warehouse.rows == want.rows
