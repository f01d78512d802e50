"""The model of runs finds each fault that it is there for: with the fix taken out, it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from flowstream import IterableProducer, StreamProducer, SuperStreamProducer
from flowstream.connectors import start, stream_producer
from flowstream.pipeline.deciders.discards import Discards
from flowstream.pipeline.delivery import SETTLED, Delivery, OffsetTracker
from flowstream.pipeline.state.run_state import RunState
from tests.pipeline.behaviour.test_runs import STEPS, Runs

EXAMPLES = 1000
Patch = pytest.MonkeyPatch
FAULTS: dict[str, tuple[Callable[[Patch], None], str, str]] = {}


def found_as(text: str, *, kind: str = "stream") -> Callable[[Callable[[Patch], None]], None]:
    """Add a function that takes a fix out; `text` is how the model complains of the fault, in a
    world of that kind."""

    def add(function: Callable[[Patch], None]) -> None:
        FAULTS[function.__name__] = function, text, kind

    return add


@found_as("-1 became 0|not handled|offset 0 of the old stream is not stored")
def an_offset_of_minus_one_becomes_zero(patch: Patch) -> None:
    def resume(tracker: OffsetTracker, stored: int) -> None:
        tracker.store(max(stored, tracker.committed or 0))  # and the last verification stores it

    patch.setattr(OffsetTracker, "resume", resume)
    patch.setattr(start.Start, "committed", property(lambda found: found.settled))


@found_as("a success with [0-9]+ messages unsettled")
def a_drain_that_leaves_work_is_a_success(patch: Patch) -> None:
    patch.setattr(RunState, "unsettled", 0)


@found_as("not handled")
def a_commit_passes_what_is_not_settled(patch: Patch) -> None:
    patch.setattr(Delivery, "first_unsettled", lambda delivery: delivery.flags.rfind(SETTLED) + 1)


@found_as("not handled")
def the_place_where_a_pipeline_began_is_not_stored(patch: Patch) -> None:
    where = start.where_to_start

    def unstored(*args: Any, **options: Any) -> Any:
        return replace(where(*args, **options), known=True)

    patch.setattr(stream_producer, "where_to_start", unstored)


@found_as("not handled")
def truncation_of_a_running_reader_is_not_told(patch: Patch) -> None:
    async def send(producer: Any, partition: Any, delivery: Any) -> None:
        await stream_producer.send(partition, delivery)

    patch.setattr(StreamProducer, "_send", send)


@found_as("not handled")
def truncation_before_a_run_is_not_told(patch: Patch) -> None:
    where = start.where_to_start

    def untold(*args: Any, **options: Any) -> Any:
        return replace(where(*args, **{**options, "skip_truncated": True}), lost=0)

    patch.setattr(stream_producer, "where_to_start", untold)


@found_as("not handled")
def the_advice_of_a_halt_skips_more_than_the_message(patch: Patch) -> None:
    def indexes(discards: Discards, delivery: Delivery) -> list[int]:
        return list(range(delivery.count))

    patch.setattr(Discards, "indexes", indexes)


@found_as("was stored, and then", kind="group")
def a_partition_is_handed_over_without_a_drain(patch: Patch) -> None:
    async def demoted(producer: Any, partition: str) -> None:
        producer._moved(partition, active=False)

    patch.setattr(SuperStreamProducer, "_demoted", demoted)


@found_as("was stored, and then", kind="group")
def a_member_whose_source_breaks_leaves_its_group_without_a_drain(patch: Patch) -> None:
    patch.setattr(SuperStreamProducer, "_give_up", SuperStreamProducer._leave)


@found_as("a success")
def a_source_that_fails_ends_as_a_success(patch: Patch) -> None:
    async def run(producer: Any, intake: Any) -> None:
        partition = intake.open(producer.stream, commits=False)
        items = producer._iterable
        try:
            if hasattr(items, "__aiter__"):
                async for item in items:
                    await partition.send([item])
            else:
                for item in items:
                    await partition.send([item])
        except ZeroDivisionError:
            return

    patch.setattr(IterableProducer, "run", run)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAULTS)
def test_the_model_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_out, text, kind = FAULTS[name]
    take_out(monkeypatch)
    monkeypatch.setattr(Runs, "kinds", (kind,))
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with pytest.raises(AssertionError, match=text):
        run_state_machine_as_test(Runs, settings=settings)
