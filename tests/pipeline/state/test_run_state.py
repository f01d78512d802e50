"""What the stages of a run share: where it halts, how crashes are bounded, and its deadline."""

from __future__ import annotations

import anyio
import pytest

from flowstream.errors import Halted, StageFailed
from flowstream.pipeline import Message, PipelineOptions
from flowstream.pipeline.message import Failure
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import StageCrashed, Telemetry
from tests.support.pipelines import Recorder

pytestmark = pytest.mark.anyio


class Partition:
    """As much of a source partition as a halt asks for."""

    codec = None
    pushed = False

    def __init__(self, stream: str) -> None:
        self.stream = stream


def messages(stream: str, count: int) -> list[Message[None]]:
    partition = Partition(stream)
    made = [Message.new(None, stream=stream, offset=offset) for offset in range(count)]
    for message in made:
        message._delivery.partition = partition
    return made


def state_of(recorder: Recorder | None = None, **options: object) -> RunState:
    telemetry = Telemetry(*(() if recorder is None else (recorder,)))
    return RunState("test", PipelineOptions(**options), telemetry, {})  # type: ignore[arg-type]


async def test_a_halt_stops_what_is_behind_it_in_its_partition_only() -> None:
    state, orders, others = state_of(), messages("orders", 5), messages("others", 5)
    for failing in (orders[3], orders[1], orders[4]):
        state.halt(Failure(failing, "broken"))
    go, behind = state.split_at_halt([*orders, *others])
    assert go == [orders[0], *others]
    assert behind == orders[1:]
    assert [*state.halted] == [("orders", 3), ("orders", 1), ("orders", 4)]
    assert isinstance(state.error, Halted)
    assert state.error.offset == 3, "the first failure is the error"
    assert state.stopping
    assert state.taking.cancel_called


async def test_a_stage_that_crashes_is_restarted_within_limits_and_then_fails_the_run() -> None:
    recorder, held = Recorder(), []
    state = state_of(recorder, max_restarts=2, restart_window=5.0)
    crashes = 0

    async def body() -> None:
        nonlocal crashes
        crashes += 1
        if crashes < 5:
            raise SystemExit(crashes)

    async def crashed(error: BaseException) -> None:
        held.append(error)

    await state.supervise("stage", body, crashed)
    assert len(held) == 4, "each crash settles what the stage held"
    told = [e for e in recorder.events if isinstance(e, StageCrashed)]
    assert [event.restarted for event in told] == [True, True, False, False]
    assert isinstance(state.error, StageFailed)
    assert "stage 'stage' crashed too often" in str(state.error)


async def test_the_first_error_is_kept() -> None:
    state = state_of()
    state.fail(first := ValueError("first"))
    state.fail(ValueError("second"))
    assert state.error is first


async def test_the_time_of_a_drain_counts_from_the_stop_during_it() -> None:
    state = state_of(drain_timeout=7.0)
    state.enter("draining")
    await anyio.sleep(100)
    state.stop()
    assert state.draining.deadline == anyio.current_time() + 7
    assert not state.timers.in_time(anyio.current_time() + 8)
    before = state.draining.deadline
    state.stop()
    assert state.draining.deadline == before


async def test_a_run_that_is_over_gets_no_older() -> None:
    state = state_of()
    await anyio.sleep(1)
    state.ended_at = state.clock()
    await anyio.sleep(10)
    assert state.now == state.ended_at


async def test_an_error_of_a_callback_has_one_note_of_where_it_was_raised() -> None:
    state, error = state_of(), LookupError("no secret")

    async def opened() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(LookupError):
            await state.watched("lifespan", opened())
    assert error.__notes__ == ["pipeline 'test': lifespan"]

    class Noteless(Exception):
        def add_note(self, note: str) -> None:
            raise TypeError

    async def another() -> None:
        raise Noteless

    with pytest.raises(Noteless):
        await state.watched("lifespan", another())
