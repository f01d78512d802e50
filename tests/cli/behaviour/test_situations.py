"""One pipeline is driven from situation to situation; in each, every face says what is true.

A situation is made by what is published and by what the handlers are told to do, so the test knows
the truth (`Truth`): the log, the live view, the page, /readyz, /metrics, `top`, `lag` and at the
end the summary are compared with it. `tests/cli/driven.py` has the pipeline.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import flowstream
from tests.cli.conftest import REAL
from tests.cli.driven import BATCH, SOON, WINDOW, Faces, Run, Shop, holds, shop, until
from tests.conftest import nodes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

REFUSED = "amount must be positive"
DOWN = "the warehouse hung up"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is so. `settled` is by outcome and `failed` for good, of this run.

    `reachable` is whether the broker is.

    `said` are records that the log has since the situation began, and all of its warnings.
    """

    condition: str
    settled: dict[str, int]
    failed: int = 0
    in_flight: int = 0
    lag: int = 0
    ready: bool = True
    reachable: bool = True
    why: str = ""
    reasons: tuple[dict[str, Any], ...] = ()
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drive:
    """A shop, its run, and how far the run has come."""

    shop: Shop
    run: Run

    @property
    def settled(self) -> dict[str, int]:
        """What the run settled, by what its handlers did."""
        counts = {"ok": self.shop.handled()["ok"], "dead_lettered": self.shop.refused}
        return {name: count for name, count in counts.items() if count}

    def all_done(self, condition: str = "running", **more: Any) -> Truth:
        """Wait until the handlers had everything."""

        until(lambda: holds(sum(self.settled.values()) == self.shop.published))
        return Truth(condition, self.settled, self.shop.refused, **more)


def healthy(it: Drive) -> Truth:
    until(it.run.look)  # it shows a pipeline, so that what comes counts as news
    it.shop.publish(*[5] * 300)
    return it.all_done()


def slow(it: Drive) -> Truth:
    """The warehouse takes its time: the window is full, and more waits in the stream."""
    it.shop.close()
    it.shop.publish(*[5] * 400)
    why = "has been running for"
    return Truth("slow", it.settled, in_flight=WINDOW, lag=400, why=why)


def caught_up(it: Drive) -> Truth:
    it.shop.open()
    return it.all_done()


def paused(it: Drive) -> Truth:
    it.run.control("pause")
    it.shop.publish(*[5] * 30)
    return Truth("paused", it.settled, lag=30)


def resumed(it: Drive) -> Truth:
    it.run.control("resume")
    return it.all_done()


def broker_lost(it: Drive) -> Truth:
    """Right after something was settled and stored."""
    it.shop.publish(*[5] * 30)
    truth = it.all_done()
    until(lambda: holds(not disagreements(it, truth, len(it.run.records))))
    it.shop.home.lose()
    return Truth("not ready", it.settled, ready=False, reachable=False, said=("lost its broker: ",))


def broker_lost_for_longer(it: Drive) -> Truth:
    """The partition has been given up, and no figure falls back to what it was before."""
    until(lambda: it.run.said("left this process, its connection is lost"))
    return Truth("not ready", it.settled, ready=False, reachable=False)


def broker_back(it: Drive) -> Truth:
    it.shop.home.back()
    it.shop.publish(*[5] * 30)
    return it.all_done(said=("is connected to its broker again after ",))


def dead_lettering(it: Drive) -> Truth:
    """Two of 300: no reason to wake anybody, and said all the same."""
    it.shop.publish(*[5] * 100, 0, *[5] * 100, -1, *[5] * 98)
    reason = {"text": REFUSED, "error": "", "stage": "processor", "attempts": 2, "dead_lettered": 2}
    said = (f"process failed in 'check' at {it.shop.partition}@", f"into '{it.shop.dead}': ")
    return it.all_done(reasons=(reason,), said=said)


def failing_with_retries(it: Drive) -> Truth:
    """The warehouse is down; the handler stops at the door, so that the count stays."""
    it.shop.goes_down()
    it.shop.publish(*[5] * BATCH)

    until(lambda: holds(it.shop.handled()["failed"] >= 3 * BATCH))
    it.shop.close()
    it.shop.until_at_the_door()
    attempts = it.shop.handled()["failed"]
    reason = {
        "text": f"ConnectionError: {DOWN}",
        "error": "ConnectionError",
        "stage": "load",
        "attempts": attempts,
        "retried": attempts,
        "dead_lettered": 0,
    }
    return Truth(
        "failing",
        it.settled,
        failed=it.shop.refused,
        in_flight=BATCH,
        lag=BATCH,
        why="attempts of load failed",
        reasons=(reason,),
        said=(DOWN,),
    )


def works_again(it: Drive) -> Truth:
    it.shop.is_up()
    it.shop.open()
    return it.all_done("failing")  # the last minute still counts


def halting(it: Drive) -> Truth:
    """A fourth refused message in a row trips the safety valve, while a batch is at the door."""
    ok = it.settled["ok"]
    it.shop.close()
    it.shop.publish(*[5] * 10)
    for _ in range(3):
        it.shop.publish(0)
        until(lambda: holds(len(it.shop.letters()) == it.shop.refused))
    it.shop.publish(0)
    reason = {"text": REFUSED, "error": "", "attempts": 6, "dead_lettered": 5, "halted": 1}
    return Truth(
        "halted",
        {"ok": ok, "dead_lettered": 5},
        failed=6,
        in_flight=10,
        lag=14,  # from the first that is not settled on
        ready=False,
        why="4 messages in a row failed",
        reasons=(reason,),
        said=("halted at ",),
    )


SITUATIONS: tuple[Callable[[Drive], Truth], ...] = (
    healthy,
    slow,
    caught_up,
    paused,
    resumed,
    broker_lost,
    broker_lost_for_longer,
    broker_back,
    dead_lettering,
    failing_with_retries,
    works_again,
    halting,
)


def summary(it: Drive) -> None:
    """After a halt: the same figures, the reasons, what is committed, and how to go on."""
    it.shop.open()
    result = it.run.end()
    assert result.code == 7, result.err
    handled, stored, name = it.shop.handled(), it.shop.stored(), it.shop.name
    assert stored is not None
    ok, failed, dead = handled["ok"], handled["failed"], len(it.shop.letters())
    first, *lines = result.out.splitlines()
    assert first.startswith(f"{name}: halted after ")
    counts = f"{ok:,} ok, {dead} dead-lettered, {failed} retried"
    assert first.endswith(f", {ok + dead:,} messages handled ({counts})")
    assert lines[:5] == [
        f"  {dead} dead-lettered: {dead} {REFUSED}",
        f"  1 halted: 1 {REFUSED}",
        f"  {failed} retried: {failed} ConnectionError in load",
        f"  {it.shop.partition}: committed offset {stored:,}",
        "  1 message received and not settled: the next run gets it again",
    ]
    assert f"  to see failed messages: flowstream dead-letters list {it.shop.dead}" in lines
    assert lines[-1].endswith(f"flowstream run shop --discard {it.shop.partition}@{stored + 1}")
    (last,) = [each for each in it.run.records if " has ended (halted) " in each["message"]]
    assert f"{ok + dead + 1:,} received" in last["message"]


def disagreements(it: Drive, truth: Truth, since: int) -> list[str]:
    """Ask everybody once: who says what is not true."""
    try:
        faces = it.run.look()
    except AssertionError as error:
        return [f"look: {error}"]
    wrong = []
    for face in FACES:
        try:
            face(it, faces, truth)
        except AssertionError as error:
            wrong.append(f"{face.__name__}: {error}")
    try:
        log(faces.log[since:], truth)
    except AssertionError as error:
        wrong.append(f"log: {error}")
    return wrong


def page(it: Drive, faces: Faces, truth: Truth) -> None:
    said = faces.pipeline
    assert said["condition"]["name"] == truth.condition, said["condition"]
    assert truth.why in said["condition"]["why"]
    assert said["outcomes"] == truth.settled
    assert said["settled"] == sum(truth.settled.values())
    assert said["in_flight"] == truth.in_flight
    assert said["lag"] == truth.lag
    assert said["failed"] == truth.failed


def readiness(it: Drive, faces: Faces, truth: Truth) -> None:
    assert faces.ready == (200 if truth.ready else 503), faces.checks
    assert bool(faces.snapshot["not_ready"]) != truth.ready
    assert faces.metrics["ready", ""] == faces.checks.count("[+]"), faces.checks


def metrics(it: Drive, faces: Faces, truth: Truth) -> None:
    for outcome, count in truth.settled.items():
        assert faces.metric("settled_messages_total", outcome) == count
    assert faces.metric("in_flight_messages") == truth.in_flight
    assert faces.metric("lag_messages") == truth.lag
    assert faces.metric("paused") == (truth.condition == "paused")
    assert faces.metrics.get(("failed_messages_total", ""), 0) == truth.failed
    for reason in truth.reasons:
        said = faces.metric("failed_attempts_total", reason["error"] or reason["text"])
        assert said == reason["attempts"]


def terminal(it: Drive, faces: Faces, truth: Truth) -> None:
    for key in ("settled", "outcomes", "in_flight", "lag", "failed"):
        assert faces.top[key] == faces.pipeline[key], key
    assert faces.top["condition"]["name"] == truth.condition
    assert re.search(rf" {truth.condition}(, | \()", faces.line.partition("/s")[0]), faces.line
    assert truth.condition in faces.frame
    for part in (
        f"{it.shop.name}: ",
        f" {sum(truth.settled.values()):,} settled, ",
        f" lag {truth.lag:,}",
        f" {truth.in_flight:,} in flight, ",
        f" {truth.failed:,} failed, ",
    ):
        assert part in faces.line
    assert it.shop.name in faces.frame
    assert f"{truth.in_flight:,} of {WINDOW:,}" in faces.frame
    assert all(len(line) <= 80 for line in faces.frame.splitlines())
    for reason in truth.reasons:
        assert reason["text"].removeprefix("ConnectionError: ") in faces.frame
        assert f"{reason['attempts']:,} {reason['error']}".strip() in faces.frame


def reasons(it: Drive, faces: Faces, truth: Truth) -> None:
    for reason in truth.reasons:
        said = [each for each in faces.pipeline["reasons"] if each["text"] == reason["text"]]
        assert [{key: each[key] for key in reason} for each in said] == [reason]


def log(records: list[dict[str, Any]], truth: Truth) -> None:
    """Every warning is one that is meant to come, and comes once."""
    warned = [it["message"] for it in records if it["level"] not in {"debug", "info"}]
    assert len(warned) == len(truth.said), warned
    for text, message in zip(truth.said, warned, strict=True):
        assert text in message


def offsets(it: Drive, faces: Faces, truth: Truth) -> None:
    """What is committed is what the broker has, and `flowstream lag` counts from there."""
    stored = it.shop.stored() if truth.reachable else it.shop.last_stored
    assert [each["stream"] for each in faces.pipeline["streams"]] == [it.shop.partition]
    stream = faces.pipeline["streams"][0]
    assert stream["committed"] == stored
    assert faces.metric("committed_offset") == stored
    assert f"committed {it.shop.partition}@{stored}" in faces.line
    if not truth.reachable:
        return
    line = ("lag", it.shop.name, it.shop.name, "--json")
    (standing,) = flowstream(*line, url=it.shop.home.behind).json
    assert (standing["offset"], standing["lag"]) == (stored, truth.lag)


FACES = (page, readiness, metrics, terminal, reasons, offsets)


def untrue(it: Drive, truth: Truth, since: int) -> list[str]:
    """What is still not true when it should be."""
    deadline = time.monotonic() + SOON
    while (found := disagreements(it, truth, since)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"{truth}", *found, *map(str, it.run.records[since:])] if found else []


def drive(shop: Shop, run: Run) -> None:
    """Through all situations; in each, everybody says the truth soon. All who do not are told."""
    it = Drive(shop, run)
    wrong = []
    for situation in SITUATIONS:
        since = len(run.records)
        if found := untrue(it, situation(it), since):
            wrong += [f"{situation.__name__}:", *found]
    assert not wrong, "\n  ".join(wrong)
    summary(it)


def test_on_a_broker_of_its_own(tmp_path: Path) -> None:
    with shop("orders", tmp_path) as driven, Run(driven) as run:
        drive(driven, run)


@pytest.mark.broker
def test_on_a_real_broker(tmp_path: Path) -> None:
    """One is enough: what differs between them is tested elsewhere."""
    real = nodes_of(REAL)[0]
    name = f"situations-{uuid.uuid4().hex[:8]}"
    try:
        with shop(name, tmp_path, real) as driven, Run(driven) as run:
            drive(driven, run)
    finally:
        real.remove(name)


def test_one_of_two_processes_stands_by_until_it_is_the_only_one(tmp_path: Path) -> None:
    with shop("orders", tmp_path) as driven, Run(driven) as first:
        here = Drive(driven, first)
        assert not untrue(here, healthy(here), 0)
        with Run(driven) as second:
            there = Drive(driven, second)
            assert not untrue(there, Truth("standing by", {}), 0)
            behind = slow(here)
            assert not untrue(here, behind, 0)
            assert not untrue(there, Truth("standing by", {}, lag=400), 0)
            first.kill()
            assert not untrue(there, replace(behind, settled={}), 0)
            driven.open()
            assert not untrue(there, Truth("running", {"ok": 400}), 0)
            assert second.said(f"{driven.partition} came to this process")
            second.stop()
            result = second.end()
    assert result.code == 0
    assert "400 messages handled (400 ok)" in result.out
