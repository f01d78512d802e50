"""Results of workers, added up to the result of the run."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.running.summary import summarize
from flowstream.cli.workers.decisions import Verdict
from flowstream.cli.workers.results import described, reporting, summed, summed_end
from flowstream.errors import (
    ConnectionFailed,
    FlowstreamError,
    Halted,
    OutcomeUnknown,
    SinkFailed,
    SinkUnavailable,
    StreamReplaced,
)
from flowstream.pipeline import Reason, RunResult


def reason(attempts: int, first: float, last: float, text: str = "bad") -> Reason:
    return Reason("load", "batch", "ValueError", text, attempts, 0, attempts, 0, 0, first, last)


def result(**changes: Any) -> RunResult:
    whole: dict[str, Any] = {
        "pipeline": "shop",
        "reason": "stopped",
        "received": 10,
        "settled": {"ok": 8},
        "failed": 2,
        "retried": 1,
        "unsettled": 0,
        "committed": {"shop-0": 7, "shop-1": None},
        "seconds": 3.0,
    }
    return RunResult(**{**whole, **changes})


def report(found: RunResult | None, **changes: Any) -> dict[str, Any]:
    results = {} if found is None else {"pipelines.shop": described(found)}
    whole = {
        "results": results,
        "unopened": {},
        "idle": [],
        "dead_letters": {"pipelines.shop": "shop.dead"},
    }
    return {**whole, **changes}


class Reported:
    """The end of a socket that keeps what a worker says last."""

    def finish(self, message: dict[str, Any]) -> None:
        self.error = message["error"]


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (ConnectionFailed("no broker"), True),
        (SinkUnavailable("no database"), True),
        (OutcomeUnknown("no answer to a commit"), True),
        (SinkFailed("not a row"), False),
        (StreamReplaced("another stream"), False),
    ],
)
def test_a_worker_says_whether_what_it_needs_is_away(error: FlowstreamError, outage: bool) -> None:
    link: Any = Reported()
    with pytest.raises(typer.Exit), reporting(link):
        raise ExceptionGroup("of the run", [error])
    assert link.error["outage"] is outage
    assert link.error["text"] == str(error)


def test_counts_are_added_and_the_highest_commit_counts() -> None:
    other = result(settled={"ok": 5, "dropped": 1}, committed={"shop-0": 3, "shop-1": 9})
    both = summed([described(result()), described(other)], 12.5)
    assert both.received == 20
    assert both.settled == {"ok": 13, "dropped": 1}
    assert both.committed == {"shop-0": 7, "shop-1": 9}
    assert (both.failed, both.retried, both.seconds) == (4, 2, 12.5)
    assert both.error is None


def test_reasons_of_one_kind_are_one() -> None:
    found = [described(result(reasons=(reason(2, 5.0, 9.0, "order 17 is bad"),)))]
    found.append(described(result(reasons=(reason(3, 1.0, 7.0, "order 18 is bad"),))))
    (only,) = summed(found, 1.0).reasons
    assert (only.attempts, only.dead_lettered, only.first, only.last) == (5, 5, 1.0, 9.0)
    assert only.text == "order … is bad"


def test_a_halt_of_one_worker_is_the_end_of_the_run_and_its_messages_are_named() -> None:
    halted = Halted("halted", pipeline="shop", stream="shop-1", offset=7, reason="bad")
    ends = [report(result()), report(result(reason="halted", error=halted))]
    ended = summed_end(ends, [], Verdict(ExitCode.HALTED, "halted at shop-1@7"), 4.0, {})
    assert ended.reported == Verdict(ExitCode.HALTED, "halted at shop-1@7")
    (found,) = ended.results.values()
    assert found.reason == "halted"
    lines = summarize(found, "pipelines.shop", idle=False)
    assert lines[-1] == (
        "  to continue without the failed message: flowstream run pipelines.shop --discard shop-1@7"
    )


def test_a_message_that_one_worker_discarded_was_discarded() -> None:
    place = ("shop-1", 7)
    found = [described(result(discarded=(place,)))]
    found.append(described(result(not_discarded={place: "it was not delivered"})))
    both = summed(found, 1.0)
    assert both.discarded == (place,)
    assert both.not_discarded == {}


def test_what_a_killed_worker_showed_last_counts() -> None:
    stream = {"stream": "shop-0", "committed": 4, "active": True}
    pipeline = {
        "name": "shop", "received": 7, "outcomes": {"ok": 6}, "failed": 0, "retried": 0,
        "streams": [stream], "reasons": [],
    }  # fmt: skip
    killed, targets = [{"pipelines": [pipeline]}], {"shop": "pipelines.shop"}
    ended = summed_end([report(result())], killed, Verdict(0), 1.0, targets)
    (found,) = ended.results.values()
    assert found.settled == {"ok": 14}
    assert ended.dead_letters == {"pipelines.shop": "shop.dead"}
    assert ended.reported is None
    ended = summed_end([], killed, Verdict(ExitCode.WORKER, "died"), 1.0, targets)
    assert list(ended.results) == ["pipelines.shop"]  # so that "to continue" names the module


def test_a_pipeline_that_no_worker_ran_is_told() -> None:
    ended = summed_end(
        [report(None, unopened={"shop": "stopped"})], [], Verdict(ExitCode.FORCED), 1.0, {}
    )
    assert ended.unopened == {"shop": "stopped"}
    assert ended.forced


def test_an_interrupt_that_a_handler_raised_is_an_error_and_no_second_signal() -> None:
    ended = summed_end([report(result())], [], Verdict(130, "KeyboardInterrupt"), 1.0, {})
    assert not ended.forced
    assert ended.reported == Verdict(ExitCode.FORCED, "KeyboardInterrupt")
