"""The snapshot of a run is the sum of those of its workers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from flowstream.monitor import WorkerView
from flowstream.monitor.workers.snapshots import MISSING_GRACE, SILENT_GRACE, not_ready
from flowstream.pipeline import Reason
from flowstream.telemetry import BatchReady
from tests.monitor.figures import BATCHER, PROCESSOR
from tests.monitor.workers.faces import NOW, OneWorker, Several


def pipeline_of(several: Several) -> Any:
    (pipeline,) = several.monitor.snapshot()["pipelines"]
    return pipeline


def test_counts_are_added_and_each_partition_is_that_of_its_reader() -> None:
    several = Several()
    pipeline = pipeline_of(several)
    assert pipeline["settled"] == 150
    assert pipeline["outcomes"] == {"ok": 150}
    assert pipeline["in_flight"] == 100
    assert [(it["stream"], it["worker"]) for it in pipeline["streams"]] == [
        ("s-0", 1),
        ("s-1", 2),
        ("s-2", 1),
    ]
    assert pipeline["lag"] == 30  # each partition once, although both measure all
    assert pipeline["elsewhere"] == []


def test_a_snapshot_of_several_has_what_one_of_a_process_has() -> None:
    several = Several()
    one = several.workers[0].endpoints.figures()["snapshot"]
    all_of_them = several.monitor.snapshot()
    assert one.keys() <= all_of_them.keys()
    (single,), (merged,) = one["pipelines"], all_of_them["pipelines"]
    assert single.keys() == merged.keys()
    assert single["stages"][0].keys() == merged["stages"][0].keys()
    assert single["streams"][0].keys() | {"worker"} == merged["streams"][0].keys()
    assert single["history"].keys() == merged["history"].keys()
    assert one["process"].keys() == all_of_them["process"].keys()


def test_a_batcher_with_the_name_of_the_processor_has_figures_of_its_own() -> None:
    """Both had the sum of both, and after a death twice that."""
    several = Several()
    for worker in several.workers:
        stages = (replace(PROCESSOR, name="load"), replace(BATCHER, name="load", handled=40))
        worker.statistics.change(stages=stages)
        worker.board.observe(BatchReady("p", "load", 20, "size", 0.1))
        worker.board.sample()
        stages = (replace(stages[0], handled=110), replace(stages[1], handled=90, failed=25))
        worker.statistics.change(stages=stages)
        worker.board.sample()
    several.end(2)
    several.workers.append(OneWorker(2, ["s-1"], 7))
    found = {
        (it["kind"], it["name"]): (it["handled"], it["batches"], it["failing"])
        for it in pipeline_of(several)["stages"]
        if it["name"] == "load"
    }
    assert found == {
        ("processor", "load"): (220, 0, False),
        ("batcher", "load"): (180, 2, True),
    }


def test_the_table_of_workers() -> None:
    first, second = Several().monitor.snapshot()["workers"]
    assert (first["number"], first["pid"], first["partitions"]) == (1, 101, ["s-0", "s-2"])
    assert (second["settled"], second["state"]) == (50, "ready")


def test_a_worker_that_ended_does_not_take_back_what_it_counted() -> None:
    several = Several()
    several.end(2)
    assert pipeline_of(several)["settled"] == 150
    several.workers.append(OneWorker(2, ["s-1"], 7))
    assert pipeline_of(several)["settled"] == 157
    several.end(2)
    several.end(1)
    several.workers.append(OneWorker(1, ["s-0", "s-1"], 1))
    assert pipeline_of(several)["settled"] == 158
    assert len(several.retired.snapshots) == 1  # bounded, however many have ended


def test_one_worker_can_be_looked_at() -> None:
    several = Several()
    several.end(1)
    several.workers.append(OneWorker(1, ["s-0"], 3))
    shown = several.monitor.snapshot(1)
    assert [it["settled"] for it in shown["pipelines"]] == [3]
    assert shown["numbers"] == [1, 2]


def test_a_silent_worker_is_the_condition_and_others_know_the_lag_of_its_partitions() -> None:
    several = Several()
    first = several.workers[0].statistics
    first.change(
        partitions=tuple(
            replace(it, lag=5_000) if it.stream == "s-1" else it for it in first.now.partitions
        )
    )
    assert pipeline_of(several)["lag"] == 30
    rate = pipeline_of(several)["rate"]
    several.workers[1].away = SILENT_GRACE + 5
    pipeline = pipeline_of(several)
    assert pipeline["condition"]["name"] == "not ready"
    assert pipeline["condition"]["why"] == f"worker 2: no answer for {SILENT_GRACE + 5:.0f} s"
    assert pipeline["lag"] == 5_020
    assert pipeline["rate"] <= rate
    assert {it["stream"]: it["worker"] for it in pipeline["streams"]}["s-1"] is None


def test_the_worst_condition_counts_and_says_whose_it_is() -> None:
    several = Several()
    several.workers[1].statistics.change(in_flight=5, progress_age=500.0)
    several.workers[1].board.pipelines["p"].error = "halted at s-1@7"
    condition = pipeline_of(several)["condition"]
    assert condition["name"] == "halted"
    assert condition["why"] == "worker 2: halted at s-1@7"


def test_a_worker_that_died_lately_is_seen() -> None:
    several = Several()
    several.waiting = [
        WorkerView(3, "waiting", NOW, restarts=4, last_error="killed by SIGKILL", died=NOW - 2),
        WorkerView(4, "ready", NOW, restarts=1, last_error="exit code 1", died=NOW - 50),
    ]
    condition = pipeline_of(several)["condition"]
    assert (condition["name"], condition["level"]) == ("failing", "bad")
    assert condition["why"] == (
        "worker 3 died 2 s ago: killed by SIGKILL (workers were started again 5 times in this run)"
    )
    assert condition["runbook"] == "runbooks#flowstreamrestarting"
    several.workers[1].board.pipelines["p"].error = "halted at s-1@7"
    assert pipeline_of(several)["condition"]["name"] == "halted"


def test_a_worker_that_died_long_ago_is_history() -> None:
    several = Several()
    several.waiting = [WorkerView(3, "ready", NOW, restarts=1, last_error="x", died=NOW - 61)]
    assert pipeline_of(several)["condition"]["name"] != "failing"


def test_a_paused_worker_does_not_hide_that_the_other_runs() -> None:
    several = Several()
    several.workers[1].statistics.change(phase="draining")
    assert pipeline_of(several)["phase"] == "running"
    assert pipeline_of(several)["condition"]["name"] in {"running", "not ready", "failing"}


def test_rate_limits_are_those_of_all_together() -> None:
    several = Several()
    assert pipeline_of(several)["rate_limit"]["messages"] == 2_000
    several.workers[0].statistics.change(rate_limit=None)
    assert pipeline_of(several)["rate_limit"] is None


def test_a_worker_may_be_missing_for_a_while_but_not_at_the_start() -> None:
    ready = Several().workers[0].view()
    missing = WorkerView(2, "waiting", NOW, restarts=1, last_error="killed by SIGKILL")
    assert not_ready([ready, missing], NOW + MISSING_GRACE) == []
    (late,) = not_ready([ready, missing], NOW + MISSING_GRACE + 1)
    assert late["detail"] == "worker 2 is not running: killed by SIGKILL"
    (starting,) = not_ready([ready, WorkerView(2, "starting", NOW)], NOW)
    assert starting["detail"] == "worker 2 is not running"
    gone = [replace(missing, number=number) for number in (2, 3)]
    (none,) = not_ready(gone, NOW)
    assert none["detail"] == "workers 2, 3 are not running: killed by SIGKILL"
    assert not_ready([], NOW) != []
    replacement = WorkerView(1, "starting", NOW, replacement=True)
    assert not_ready([ready, replacement], NOW) == []


def test_a_worker_that_does_not_answer_is_not_ready_whatever_it_said_last() -> None:
    ready = Several().workers[0].view()
    assert not_ready([replace(ready, silent=SILENT_GRACE)], NOW) == []
    (draining,) = not_ready([replace(ready, state="draining")], NOW)
    assert draining["detail"] == "no worker is ready"
    (silent,) = not_ready([replace(ready, silent=SILENT_GRACE + 1)], NOW)
    assert silent["detail"] == f"worker 1: no answer for {SILENT_GRACE + 1:.0f} s"
    assert "If a handler blocks its event loop" in silent["advice"]


def test_the_failing_check_of_a_worker_is_that_of_the_run() -> None:
    several = Several()
    several.workers[1].statistics.change(uncommitted=500.0)
    (failing,) = several.monitor.snapshot()["not_ready"]
    assert failing["check"] == "commits"
    assert failing["detail"].startswith("worker 2: settled messages have been waiting")


def failures(text: str, attempts: int, first: float) -> Reason:
    return Reason(
        "load", "batch", "ValueError", text, attempts, 0, attempts, 0, 0, first, first + 9,
        stream="s-0", offset=int(first), handler="load",
    )  # fmt: skip


def test_failures_of_one_kind_are_one_whichever_workers_had_them() -> None:
    """As in one process: texts that differ only in numbers and ids are the same reason."""
    several = Several()
    for worker, reason in zip(
        several.workers,
        (
            failures("ValueError: order 17 is bad", 2, 5),
            failures("ValueError: order 18 is bad", 3, 4),
        ),
        strict=True,
    ):
        worker.statistics.change(reasons=(reason,))
    (both,) = pipeline_of(several)["reasons"]
    assert both == asdict(failures("ValueError: order … is bad", 5, 4)) | {"last": 14}


def test_no_failure_is_left_out_of_the_reasons() -> None:
    several = Several()
    for number, worker in enumerate(several.workers):
        reasons = [
            failures(f"reason {'x' * (index + 1)} of {'ab'[number]}", 1, 1) for index in range(40)
        ]
        worker.statistics.change(reasons=tuple(reasons))
    shown = pipeline_of(several)["reasons"]
    assert sum(reason["attempts"] for reason in shown) == 80
    assert (shown[-1]["text"], shown[-1]["attempts"]) == ("other reasons", 30)
