"""The decisions of a parent, in virtual time: who is started, drained and killed, and when."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.workers.decisions import (
    ANSWERED,
    ROLL_PATIENCE,
    SHORT_LIFE,
    SHORT_LIVES,
    SILENT_DRAIN,
    Act,
    Decisions,
    End,
    Member,
    Phase,
    Verdict,
)
from flowstream.monitor import SILENT_GRACE

KILLED = End(-9, reported=False)
HALTED = End(ExitCode.HALTED, "halted at shop-1@7")
DRAINED = End(ExitCode.OK)


@dataclass
class World:
    """Decisions and a clock; what was done is written down."""

    decisions: Decisions = field(default_factory=lambda: Decisions(2, cores=4))
    now: float = 0.0
    log: list[tuple[Act, Member]] = field(default_factory=list)
    silent: set[Member] = field(default_factory=set)
    """Workers that do not answer."""

    def act(self) -> list[tuple[str, int]]:
        """What is to be done now."""
        done = list(self.decisions.act(self.now))
        assert all(member.phase is not Phase.ENDED for _, member in done), "it has no process"
        self.log += done
        return [(act.value, member.number) for act, member in done]

    def member(self, number: int) -> Member:
        current = self.decisions.slots[number].current
        assert current is not None
        return current

    def new(self, number: int) -> Member:
        replacement = self.decisions.slots[number].replacement
        assert replacement is not None
        return replacement

    def ready(self, member: Member) -> None:
        self.decisions.prepared(member, 3)
        self.decisions.observed(member, ready=True, now=self.now)

    def running(self) -> World:
        """All workers are started and ready."""
        self.act()
        self.ready(self.member(1))
        self.act()
        for number in list(self.decisions.slots):
            self.ready(self.member(number))
        self.act()
        self.decisions.news.clear()
        return self

    def pass_by(self, seconds: float) -> list[tuple[str, int]]:
        self.now += seconds
        return self.act()

    def look(self, settled: bool = True) -> list[tuple[str, int]]:
        for member in self.decisions.members():
            if member not in self.silent:
                ready = member.phase is Phase.READY
                self.decisions.observed(member, ready=ready, now=self.now)
        self.decisions.looked(settled=settled, now=self.now)
        return self.act()


def test_the_first_worker_starts_alone_and_the_others_when_it_has_found_its_streams() -> None:
    world = World(Decisions(3, cores=4))
    assert world.act() == [("start", 1)]
    assert world.act() == []
    world.decisions.prepared(world.member(1), 3)
    assert world.act() == [("start", 2), ("start", 3)]


def test_auto_is_one_for_each_core_and_at_most_one_for_each_partition() -> None:
    for cores, partitions, expected in ((4, 3, 3), (2, 16, 2), (8, 0, 1), (1, 5, 1)):
        world = World(Decisions(None, cores=cores))
        world.act()
        world.decisions.prepared(world.member(1), partitions)
        world.act()
        assert len(world.decisions.slots) == expected


def test_a_worker_that_cannot_start_ends_the_run_with_its_error() -> None:
    world = World()
    world.act()
    missing = End(ExitCode.MODULE_MISSING, "there is no module 'shop'")
    world.decisions.ended(world.member(1), missing, 1.0)
    assert world.act() == []
    assert world.decisions.verdict is not None
    assert world.decisions.verdict.code == ExitCode.MODULE_MISSING
    assert world.decisions.verdict.text == "there is no module 'shop'"


def test_a_worker_that_exits_without_a_word_before_it_was_ready_ends_the_run() -> None:
    world = World()
    world.act()
    world.decisions.ended(world.member(1), End(3, reported=False), 1.0)
    world.act()
    verdict = world.decisions.verdict
    assert verdict is not None
    assert verdict.code == ExitCode.WORKER
    assert verdict.text == "worker 1 ended before it was ready: exit code 3"


@pytest.mark.parametrize("code", [0, -signal.SIGSEGV, -signal.SIGABRT])
def test_a_module_that_ends_its_process_ends_the_run(code: int) -> None:
    world = World()
    world.act()
    world.decisions.ended(world.member(1), End(code, reported=False), 1.0)
    world.act()
    assert world.decisions.verdict is not None
    assert world.decisions.verdict.code == ExitCode.WORKER


def test_a_crash_of_a_handler_is_no_failure_to_start() -> None:
    world = World()
    world.act()
    world.decisions.prepared(world.member(1), 3)
    world.act()
    world.decisions.ended(world.member(1), End(-signal.SIGSEGV, reported=False), 1.0)
    assert not world.decisions.stopping
    assert world.decisions.deaths == 1


def test_a_killed_worker_is_started_again_after_a_delay() -> None:
    world = World().running()
    world.now = 100.0
    world.decisions.ended(world.member(2), KILLED, world.now)
    assert world.act() == []
    assert world.decisions.news == [
        "worker 2 died: killed by SIGKILL; it is started again in 0.1 s"
    ]
    due = world.decisions.due()
    assert due is not None
    assert 100.0 < due <= 100.2
    assert world.pass_by(0.2) == [("start", 2)]
    assert world.member(2).generation == 2


def test_delays_grow_with_short_lives_and_begin_anew_after_a_long_one() -> None:
    world = World().running()
    delays = []
    for _ in range(4):
        world.ready(world.member(1))
        world.decisions.ended(world.member(1), KILLED, world.now)
        due = world.decisions.due()
        assert due is not None
        delays.append(round(due - world.now, 2))
        assert world.pass_by(due - world.now) == [("start", 1)]
    assert delays == [0.1, 0.2, 0.4, 0.8]
    world.ready(world.member(1))
    world.now += SHORT_LIFE
    world.decisions.ended(world.member(1), KILLED, world.now)
    due = world.decisions.due()
    assert due is not None
    assert round(due - world.now, 2) == 0.1


def test_too_many_short_lives_end_the_run_with_the_last_error() -> None:
    world = World().running()
    lives = 0
    while not world.decisions.stopping:
        world.ready(world.member(1))
        world.decisions.ended(world.member(1), End(-11, reported=False), world.now)
        lives += 1
        world.pass_by(10.0)
    assert lives == SHORT_LIVES
    assert world.log[-1] == (Act.DRAIN, world.member(2))
    world.decisions.ended(world.member(2), DRAINED, world.now)
    world.act()
    verdict = world.decisions.verdict
    assert verdict is not None
    assert verdict.code == ExitCode.WORKER
    assert "killed by SIGSEGV" in verdict.text


def test_a_halt_ends_the_run_and_the_others_drain() -> None:
    world = World().running()
    world.decisions.ended(world.member(1), HALTED, 60.0)
    assert world.act() == [("drain", 2)]
    world.decisions.ended(world.member(2), DRAINED, 61.0)
    assert world.act() == []
    verdict = world.decisions.verdict
    assert verdict is not None
    assert (verdict.code, verdict.text) == (ExitCode.HALTED, "halted at shop-1@7")


def test_two_workers_halt_before_anything_is_done_about_the_first() -> None:
    world = World().running()
    first, second = world.member(1), world.member(2)
    world.decisions.ended(first, HALTED, 60.0)
    world.decisions.ended(second, HALTED, 60.0)
    assert world.act() == []
    verdict = world.decisions.verdict
    assert verdict is not None
    assert (verdict.code, verdict.text) == (ExitCode.HALTED, "halted at shop-1@7")


@pytest.mark.parametrize("code", [ExitCode.CONNECTION, ExitCode.SINK_FAILED])
def test_an_outage_ends_the_run_of_a_worker_that_starts_for_the_first_time_only(code: int) -> None:
    lost = End(code, "it is away", outage=True)
    first = World()
    first.act()
    first.decisions.ended(first.member(1), lost, 1.0)
    assert first.decisions.stopping
    later = World().running()
    later.decisions.ended(later.member(1), lost, 60.0)
    assert not later.decisions.stopping
    assert later.decisions.due() is not None


@pytest.mark.parametrize("code", [ExitCode.CONNECTION, ExitCode.SINK_FAILED])
def test_an_outage_of_any_length_does_not_end_the_run(code: int) -> None:
    world = World().running()
    world.decisions.ended(world.member(1), KILLED, world.now)
    delays = []
    for _ in range(10 * SHORT_LIVES):
        due = world.decisions.due()
        assert due is not None
        delays.append(round(due - world.now, 1))
        assert world.pass_by(due - world.now) == [("start", 1)]
        lost = End(code, "it is away", outage=True)
        world.decisions.ended(world.member(1), lost, world.now)
    assert not world.decisions.stopping
    assert delays == sorted(delays)
    assert delays[-1] > 1
    world.pass_by(60.0)
    world.ready(world.member(1))
    world.decisions.ended(world.member(1), KILLED, world.now)
    assert not world.decisions.stopping  # it is the second short life


def test_a_worker_that_somebody_stops_is_started_again_and_an_idle_one_is_not() -> None:
    world = World().running()
    world.decisions.ended(world.member(1), End(0, by="signal"), 60.0)
    world.now = 60.0
    assert world.decisions.news == [
        "worker 1 was stopped by a signal; it is started again in 0.1 s"
    ]
    assert world.pass_by(0.2) == [("start", 1)]
    assert world.decisions.deaths == 0
    world.ready(world.member(1))
    world.decisions.ended(world.member(1), End(0, by="idle"), 61.0)
    assert world.act() == []
    world.decisions.ended(world.member(2), End(0, by="idle"), 62.0)
    world.act()
    assert world.decisions.verdict is not None
    assert world.decisions.verdict.code == ExitCode.OK


def test_the_first_signal_drains_the_second_abandons_and_the_third_kills() -> None:
    world = World().running()
    world.decisions.stop()
    assert world.act() == [("drain", 1), ("drain", 2)]
    world.decisions.stop()
    assert world.act() == []
    world.decisions.force()
    assert world.act() == [("abort", 1), ("abort", 2)]
    world.decisions.ended(world.member(1), End(130), 1.0)
    world.decisions.force()
    assert world.act() == [("kill", 2)]
    world.decisions.ended(world.member(2), KILLED, 1.0)
    world.act()
    assert world.decisions.verdict is not None
    assert world.decisions.verdict.code == ExitCode.FORCED


def test_a_drain_that_takes_too_long_is_the_end_of_the_run() -> None:
    world = World().running()
    world.decisions.stop()
    world.act()
    late = End(ExitCode.DRAIN_TIMEOUT, "3 messages were not settled")
    world.decisions.ended(world.member(1), late, 30.0)
    world.decisions.ended(world.member(2), DRAINED, 30.0)
    world.act()
    assert world.decisions.verdict is not None
    assert world.decisions.verdict.code == ExitCode.DRAIN_TIMEOUT


def test_workers_that_stop_themselves_again_and_again_end_the_run() -> None:
    world = World().running()
    for _ in range(SHORT_LIVES):
        assert not world.decisions.stopping
        world.ready(world.member(1))
        world.decisions.ended(world.member(1), End(0, by="signal"), world.now)
        world.pass_by(10.0)
    world.decisions.ended(world.member(2), DRAINED, world.now)
    world.act()
    assert world.decisions.verdict == Verdict(
        ExitCode.WORKER,
        f"worker 1 ended {SHORT_LIVES} times within 10 s of its start; the last time: stopped by a "
        "signal",
    )


def test_a_worker_that_dies_while_it_drains_is_the_end_of_the_run() -> None:
    world = World().running()
    world.decisions.stop()
    world.act()
    world.decisions.ended(world.member(1), KILLED, 30.0)
    world.decisions.ended(world.member(2), DRAINED, 30.0)
    world.act()
    assert world.decisions.verdict == Verdict(
        ExitCode.WORKER,
        "worker 1 died while it drained: killed by SIGKILL; its messages in flight are handled "
        "again",
    )


@pytest.mark.parametrize("code", [-signal.SIGTERM, ExitCode.FORCED])
def test_a_worker_that_imports_is_ended_by_the_drain(code: int) -> None:
    world = World()
    world.act()
    world.decisions.stop()
    world.act()
    world.decisions.ended(world.member(1), End(code, reported=False), 1.0)
    world.act()
    assert world.decisions.verdict == Verdict(ExitCode.OK)


def test_a_worker_that_is_silent_is_killed_when_its_drain_must_be_over() -> None:
    world = World().running()
    world.member(1).drain_timeout = 10.0
    world.member(2).drain_timeout = 40.0
    world.decisions.stop()
    assert world.act() == [("drain", 1), ("drain", 2)]
    assert world.pass_by(10.0 + SILENT_DRAIN) == []
    world.decisions.observed(world.member(2), ready=True, now=world.now)
    assert world.pass_by(1.0) == [("kill", 1)]
    assert world.pass_by(1.0) == []
    world.decisions.ended(world.member(1), KILLED, world.now)
    world.pass_by(30.0)
    world.decisions.ended(world.member(2), DRAINED, world.now)
    world.act()
    verdict = world.decisions.verdict
    assert verdict is not None
    assert verdict.code == ExitCode.DRAIN_TIMEOUT
    assert verdict.text.startswith("worker 1 did not answer for 16 s while it drained")


def test_no_worker_is_started_while_the_run_ends() -> None:
    world = World().running()
    world.decisions.ended(world.member(1), KILLED, 60.0)
    world.decisions.stop()
    assert world.pass_by(1000.0) == [("drain", 2)]
    assert world.decisions.due() is None


# -- rolling


def test_a_roll_drains_a_worker_only_when_its_replacement_is_ready_and_all_is_read() -> None:
    world = World().running()
    old = world.member(1)
    assert world.decisions.start_roll(world.now) == ""
    assert world.look() == [("start", 1)]
    assert world.look() == []  # it is starting
    world.ready(world.new(1))
    assert world.look(settled=False) == []  # a partition is being handed over
    assert world.look() == [("drain", 1)]
    assert old.phase is Phase.DRAINING
    assert world.look() == []
    world.decisions.ended(old, DRAINED, world.now)
    assert world.look(settled=False) == []  # its partitions are not read yet
    assert world.look() == []
    assert world.look() == [("start", 2)]  # the next one
    world.ready(world.new(2))
    second = world.member(2)
    assert world.look() == [("drain", 2)]
    world.decisions.ended(second, DRAINED, world.now)
    world.look()
    assert world.decisions.roll is None
    assert world.decisions.rolled == "ok"
    assert [member.generation for member in world.decisions.members()] == [2, 2]
    assert world.decisions.slots[1].restarts == 0


def test_a_replacement_that_cannot_start_changes_nothing() -> None:
    world = World().running()
    world.decisions.start_roll(world.now)
    world.look()
    broken = End(ExitCode.MODULE_BROKEN, "importing shop raised SyntaxError")
    world.decisions.ended(world.new(1), broken, world.now)
    assert world.look() == []
    assert world.decisions.roll is None
    assert "importing shop raised SyntaxError" in world.decisions.rolled
    assert [member.generation for member in world.decisions.members()] == [1, 1]
    assert not world.decisions.stopping


def test_a_replacement_that_does_not_get_ready_is_given_up() -> None:
    world = World().running()
    world.decisions.start_roll(world.now)
    world.look()
    new = world.new(1)
    world.now += ROLL_PATIENCE + 1
    assert world.look() == [("drain", 1)]
    assert new.phase is Phase.DRAINING
    assert world.decisions.roll is None
    world.decisions.ended(new, DRAINED, world.now)
    assert world.act() == []
    assert world.member(1).phase is Phase.READY


def test_a_long_drain_does_not_end_a_roll() -> None:
    world = World().running()
    old = world.member(1)
    world.decisions.start_roll(world.now)
    world.look()
    new = world.new(1)
    world.ready(new)
    assert world.look() == [("drain", 1)]
    for _ in range(30):
        world.decisions.observed(old, ready=False, now=world.now)
        world.now += ROLL_PATIENCE / 10
        assert world.look() == []
    world.decisions.ended(old, DRAINED, world.now)
    assert world.look() == []
    assert world.look() == [("start", 2)]
    assert world.member(1) is new


def test_a_roll_kills_a_worker_that_cannot_drain_and_goes_on() -> None:
    world = World().running()
    world.decisions.start_roll(world.now)
    world.look()
    new, old = world.new(1), world.member(1)
    world.ready(new)
    assert world.look() == [("drain", 1)]
    world.silent.add(old)
    world.now += old.drain_timeout + SILENT_DRAIN + 1
    assert world.look() == [("kill", 1)]
    world.decisions.ended(old, KILLED, world.now)
    assert world.look() == []
    assert world.look() == [("start", 2)]
    assert world.member(1) is new
    assert world.decisions.deaths == 0


def test_a_worker_that_is_killed_during_its_roll_is_replaced_at_once() -> None:
    world = World().running()
    world.decisions.start_roll(world.now)
    world.look()
    new = world.new(1)
    world.decisions.ended(world.member(1), KILLED, world.now)
    assert world.member(1) is new
    assert world.act() == []
    world.ready(new)
    world.look()
    assert world.look() == [("start", 2)]


def test_a_silent_worker_ends_before_a_roll_moves_anything() -> None:
    """Nobody can take its partitions over, and what it gets is not read."""
    world = World().running()
    stopped = world.member(2)
    world.silent.add(stopped)
    world.now += ANSWERED + 1
    world.decisions.start_roll(world.now)
    assert world.look() == []
    world.now += SILENT_GRACE
    assert world.look() == [("drain", 2)]
    assert "worker 2 does not answer: the restart goes on when it has ended, in 30 s at most" in (
        world.decisions.news
    )
    world.now += ROLL_PATIENCE / 10
    assert world.look() == []
    world.now += stopped.drain_timeout
    assert world.look() == [("kill", 2)]
    world.decisions.ended(stopped, KILLED, world.now)
    assert world.act() == [("start", 2)]
    assert (world.decisions.deaths, world.decisions.slots[2].restarts) == (0, 0)
    world.ready(world.member(2))
    old = world.member(1)
    assert world.look() == [("start", 1)]
    world.ready(world.new(1))
    assert world.look() == [("drain", 1)]
    world.decisions.ended(old, DRAINED, world.now)
    world.look()
    world.look()
    assert world.look() == []  # worker 2 is new already
    assert (world.decisions.roll, world.decisions.rolled) == (None, "ok")
    assert [member.generation for member in world.decisions.members()] == [2, 2]


def test_no_load_is_evened_out_while_a_worker_is_silent() -> None:
    """It would be given partitions, too, and they would stay unread."""
    world = World().running()
    assert world.decisions.calm(world.now)
    world.now += ANSWERED + 1
    assert not world.decisions.calm(world.now)
    world.silent.add(world.member(2))
    world.look()
    assert not world.decisions.calm(world.now)
    world.silent.clear()
    world.look()
    assert world.decisions.calm(world.now)


def test_workers_that_are_silent_end_one_by_one() -> None:
    """They may only be busy, or the parent itself was stopped."""
    world = World().running()
    workers = [world.member(1), world.member(2)]
    world.silent.update(workers)
    world.decisions.start_roll(world.now)
    world.now += SILENT_GRACE + 1
    assert world.look() == [("drain", 1)]
    world.now += 1
    assert world.look() == []
    world.silent.clear()
    world.decisions.ended(workers[0], DRAINED, world.now)
    assert world.look() == [("start", 1)]
    world.ready(world.member(1))
    assert world.look() == world.look() == []
    assert world.look() == [("start", 2)]


def test_a_worker_that_becomes_silent_during_a_roll_holds_up_the_drain_of_another() -> None:
    world = World().running()
    world.decisions.start_roll(world.now)
    assert world.look() == [("start", 1)]
    world.silent.add(world.member(2))
    world.now += ANSWERED + 1
    world.ready(world.new(1))
    assert world.look() == []
    world.silent.clear()
    assert world.look() == [("drain", 1)]


def test_what_a_worker_reports_when_a_roll_lets_it_end_first_does_not_end_the_run() -> None:
    world = World().running()
    world.silent.add(world.member(2))
    world.now += SILENT_GRACE + 1
    world.decisions.start_roll(world.now)
    assert world.look() == [("drain", 2)]
    late = End(ExitCode.DRAIN_TIMEOUT, "3 messages were not settled")
    world.decisions.ended(world.member(2), late, world.now)
    assert world.act() == [("start", 2)]


def rolled(world: World, number: int) -> None:
    """A worker is replaced, and not the one after it."""
    old = world.member(number)
    assert world.look() == [("start", number)]
    world.ready(world.new(number))
    assert world.look() == [("drain", number)]
    world.decisions.ended(old, DRAINED, world.now)
    world.look()


def test_a_roll_that_is_asked_for_while_workers_start_follows() -> None:
    world = World()
    world.act()
    world.now = 1.0
    assert world.decisions.ask_roll(world.now) == "the workers are starting"
    assert world.look() == []
    world.now = 2.0
    world.running()
    rolled(world, 1)
    for _ in range(3):
        assert world.look() == []  # worker 2 started later, with what was to be used
    assert world.decisions.rolled == "ok"
    assert [member.generation for member in world.decisions.members()] == [2, 1]


def test_a_roll_that_is_asked_for_during_another_follows() -> None:
    world = World().running()
    world.decisions.ask_roll(1.0)
    world.now = 2.0
    rolled(world, 1)
    assert world.decisions.ask_roll(3.0) == "the workers are being restarted already"
    world.now = 4.0
    rolled(world, 2)  # it has what the second one asked for
    rolled(world, 1)
    for _ in range(3):
        assert world.look() == []
    assert [member.generation for member in world.decisions.members()] == [3, 2]
    world.decisions.stop()
    assert world.decisions.ask_roll(5.0) == "the run is ending"


def test_one_roll_at_a_time_and_none_while_the_run_ends() -> None:
    world = World()
    world.act()
    assert world.decisions.start_roll(0.0) == "the workers are starting"
    world.running()
    assert world.decisions.start_roll(0.0) == ""
    assert world.decisions.start_roll(0.0) == "the workers are being restarted already"
    world.decisions.stop()
    assert world.decisions.roll is None
    assert world.decisions.start_roll(0.0) == "the run is ending"


# -- anything, in any order

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["kill", "halt", "sigterm", "ready", "roll", "look", "stop", "wait"]),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_the_run_ends_when_it_is_stopped(
    steps: list[tuple[str, int, bool]],
) -> None:
    """Never two processes without a roll, never more than one roll, and always an end.

    Several things may happen before the parent acts.
    """
    world = World(Decisions(3, cores=4))
    world.act()
    for step, choice, acts in steps:
        world.now += 1.0
        begun = {member for act, member in world.log if act is Act.START}
        members = [it for it in world.decisions.members() if it in begun]
        member = members[choice % len(members)] if members else None
        if step == "wait":
            world.now += 20.0
        elif step == "roll":
            (world.decisions.start_roll if choice % 2 else world.decisions.ask_roll)(world.now)
        elif step == "look":
            world.decisions.looked(settled=choice > 1, now=world.now)
        elif step == "stop" and choice == 0:
            world.decisions.stop()
        elif member is not None and step == "ready":
            world.ready(member)
        elif member is not None and step in {"kill", "halt", "sigterm"}:
            end = {"kill": KILLED, "halt": HALTED, "sigterm": End(0, by="signal")}[step]
            world.decisions.ended(member, end, world.now)
        if acts:
            world.act()
        for slot in world.decisions.slots.values():
            assert len(slot.members) <= 2
    world.decisions.stop()
    world.act()
    for member in world.decisions.members():
        world.decisions.ended(member, DRAINED, world.now)
    world.act()
    assert world.decisions.verdict is not None
    started = [member for act, member in world.log if act is Act.START]
    assert len(set(map(id, started))) == len(started)
    assert all(member.phase is Phase.ENDED for member in started)
