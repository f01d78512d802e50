"""What a run says at its end: what became of messages that failed, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowstream.cli.running.summary import REASONS, STREAMS, as_json, summarize, warning
from flowstream.pipeline import Reason, RunResult
from tests.brokers.running import Broker
from tests.cli.command import flowstream

MODULE = """
from flowstream import Backoff, Batch, DeadLetter, Drop, Failure, Message, Pipeline, Retry
from flowstream import StreamProducer

pipeline = Pipeline(
    "{stream}", StreamProducer("{stream}"), on_failure={policy},
    retry=Retry(2, backoff=Backoff(initial=0.01)),
)

@pipeline.processor
async def check(message: Message[dict]) -> None:
    if message.data["n"] == 1:
        message.fail("amount must be positive", retry=False)
    if message.data["n"] == 5:
        message.fail("order 5 unknown", retry=False)
    if message.data["n"] == 6:
        message.fail("order 6 unknown", retry=False)

@pipeline.batcher(size=1)
async def load(batch: Batch[dict]) -> None:
    if batch.data[0]["n"] in (2, 3):
        1 / 0
"""


def reason(label: str = "", **counts: Any) -> Reason:
    error, _, stage = label.partition(" in ")
    text = f"{error}: no" if stage else label
    fates = dict.fromkeys(("attempts", "retried", "dead_lettered", "discarded", "halted"), 0)
    about = {"phase": "batch", "error": error if stage else "", "text": text, "first": 0.0,
             "last": 1.0, "stage": stage or "load"}  # fmt: skip
    return Reason(**{**about, **fates, **counts})


def result(*reasons: Reason, **settled: int) -> RunResult:
    failed = sum(count for outcome, count in settled.items() if outcome not in ("ok", "dropped"))
    return RunResult(
        pipeline="orders", reason="ended", received=9, settled=settled, failed=failed, retried=0,
        unsettled=0, committed={}, seconds=1.0, reasons=reasons,
    )  # fmt: skip


def test_the_reasons_of_each_fate() -> None:
    lines = summarize(
        result(
            reason("ZeroDivisionError in load", dead_lettered=1, retried=3),
            reason("amount must be positive", dead_lettered=1),
            reason("ZeroDivisionError in load", dead_lettered=1),
            reason("KeyError in processor", discarded=1_200, halted=1),
            ok=4, dead_lettered=3,
        ),
        "shop",
        idle=False,
    )  # fmt: skip
    assert lines[1:5] == [
        "  3 dead-lettered: 2 ZeroDivisionError in load, 1 amount must be positive",
        "  1,200 discarded: 1,200 KeyError in processor",
        "  1 halted: 1 KeyError in processor",
        "  3 retried: 3 ZeroDivisionError in load",
    ]


def test_many_reasons_are_counted() -> None:
    many = [reason(f"{letter * 3} is missing", discarded=2) for letter in "abcdefgh"]
    (line,) = [
        line
        for line in summarize(result(*many, discarded=16), "shop", idle=False)
        if " discarded: " in line
    ]
    assert line.startswith("  16 discarded: 2 aaa is missing, ")
    assert line.endswith(f", {2 * (8 - REASONS)} for {8 - REASONS} other reasons")
    few = summarize(result(*many[: REASONS + 1], discarded=12), "shop", idle=False)
    (line,) = [line for line in few if " discarded: " in line]
    assert line.endswith(f"2 {'abcdefgh'[REASONS] * 3} is missing")  # instead of 1 other reason
    (line,) = [
        line
        for line in summarize(result(reason("x" * 300, halted=1)), "shop", idle=False)
        if " halted: " in line
    ]
    assert len(line) < 200


def test_a_run_in_which_nothing_succeeded_says_so() -> None:
    said = "warning: orders: no message was handled successfully: all 3 failed"
    assert warning(result(dead_lettered=3)) == said
    assert warning(result(dead_lettered=2, discarded=1)) == said
    assert warning(result(ok=1, dead_lettered=3)) is None
    assert warning(result(dropped=1, dead_lettered=3)) is None, "a handler decided about one"
    assert warning(result()) is None
    assert as_json(result(reason("a in b", retried=1)), "shop")["reasons"][0]["retried"] == 1


def test_a_run_says_why(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    dead = f"{stream_name}.dead"
    policy = f'DeadLetter("{dead}", max_ratio=None)'
    (tmp_path / "shop.py").write_text(MODULE.format(stream=stream_name, policy=policy))
    sent = flowstream(
        "publish", stream_name, "-", "--create", url=broker.url,
        stdin=b"".join(b'{"n":%d}\n' % n for n in range(7)),
    )  # fmt: skip
    assert sent.code == 0, sent.err
    run = flowstream("run", "shop", "--until-idle", "0.3", url=broker.url, cwd=tmp_path)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert (
        "  5 dead-lettered: 2 ZeroDivisionError in load, 2 order … unknown, "
        "1 amount must be positive" in lines
    )
    assert "  2 retried: 2 ZeroDivisionError in load" in lines
    logged = f"WARNING flowstream.pipeline: pipeline '{stream_name}': "
    for said in (
        f"batch failed in 'load' at {stream_name}@2: ZeroDivisionError: division by zero",
        f"process failed in 'check' at {stream_name}@1: amount must be positive",
        f"dead-lettered into '{dead}': {stream_name}@1: amount must be positive",
        "1 more like it in the last minute: process failed in 'check': order … unknown",
    ):
        assert logged + said in run.err
    assert "warning" not in run.err
    listed = flowstream("dead-letters", "list", dead, "--reasons", "--json", url=broker.url)
    assert {(row["letters"], row["reason"]) for row in listed.json} == {
        (2, "ZeroDivisionError: division by zero"),
        (2, "order … unknown"),
        (1, "amount must be positive"),
    }


def test_a_run_that_dead_letters_everything_is_loud(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(MODULE.format(stream=stream_name, policy="Drop()"))
    flowstream(
        "publish", stream_name, "-", "--create", url=broker.url, stdin=b'{"n":1}\nnot JSON\n'
    )
    line = ("run", "shop", "--until-idle", "0.3")
    run = flowstream(*line, "--json", url=broker.url, cwd=tmp_path)
    assert run.code == 0, run.err
    assert f"warning: {stream_name}: no message was handled successfully: all 2 failed" in run.err
    (document,) = json.loads(run.out)
    found = {(r["phase"], r["error"], r["text"], r["discarded"]) for r in document["reasons"]}
    assert ("process", "", "amount must be positive", 1) in found
    assert {phase for phase, *_ in found} == {"decode", "process"}
    (undecodable,) = [r for r in document["reasons"] if r["phase"] == "decode"]
    assert (undecodable["offset"], undecodable["sample"]) == (1, "not JSON")


def test_messages_that_are_handled_twice_are_counted() -> None:
    halted = replace(result(ok=5), reason="halted", unsettled=2, repeated=1)
    assert summarize(halted, "shop", idle=False)[1:3] == [
        "  2 messages received and not settled: the next run gets them again",
        "  1 message handled after an unsettled one: the next run gets it again, too",
    ]


def test_the_command_that_continues() -> None:
    lines = summarize(result(ok=1), "a-to-b", idle=False, command="flowstream super-streams ...")
    assert lines[-1] == "  to continue: flowstream super-streams ..."


def test_many_partitions_are_counted_and_are_in_the_order_of_their_numbers() -> None:
    offsets = {f"shop-{n}": None if n % 2 else n for n in range(300)}
    lines = summarize(replace(result(ok=1), committed=offsets), "shop", idle=False)
    shown = [line for line in lines if "committed offset " in line]
    assert shown[:3] == [
        "  shop-0: committed offset 0",
        "  shop-1: committed offset none",
        "  shop-2: committed offset 2",
    ]
    assert len(shown) == STREAMS
    assert "  280 more streams, 140 of them with a committed offset; --json" in "\n".join(lines)
    assert len(lines) < 25
