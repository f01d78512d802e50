"""Decides which worker process is started, drained or killed, and when. Pure: `now` is an argument.

* Worker 1 starts alone. The others follow once it has loaded its modules and found its streams, so
  that an error of the module, broker or streams is reported once, and ends the run.
* A worker that dies is started again after a delay that grows with every short life. After
  `SHORT_LIVES` of them in a row the run ends. A worker that reports an error which would come
  again (a halt, a missing stream) ends the run with that error at once, and the others drain.
* A roll starts a new process under the number of the old one, waits until it is ready and all
  partitions are read, and only then drains the old one. So a new process that cannot run
  changes nothing. A worker that is silent cannot hand over what it reads, and what others hand over
  to it stays unread. So it has to end first, before the roll moves anything.
* The first signal drains all, the second abandons what is in flight, the third kills.
* A worker that drains and answers nothing is killed when its drain must be over: it is stopped, or
  a handler blocks its event loop, and no timeout of its own can end it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from flowstream.backoff import Backoff
from flowstream.cli.exit_codes import ExitCode
from flowstream.monitor import SILENT_GRACE
from flowstream.texts import plural

SHORT_LIFE = 10.0
"""Seconds that a worker must be ready for: one that dies before has failed again."""

SHORT_LIVES = 10
"""Short lives of one worker in a row after which the run ends."""

RESTART = Backoff(0.1, maximum=10.0)
"""Delays before a worker that died is started again."""

ROLL_PATIENCE = 120.0
"""Seconds for each step of a roll, such as a new process becoming ready. A drain has its own."""

ANSWERED = 3.0
"""Seconds since an answer after which no partition is moved. A roll waits for the next answer, or
until `SILENT_GRACE`, when it lets the worker end first."""

SILENT_DRAIN = 5.0
"""Seconds beyond the `drain_timeout` after which a worker that drains and is silent is killed."""

CRASHES = frozenset(
    {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS}
)
"""Signals by which a process ends itself."""

AGAIN = frozenset(
    {
        ExitCode.UNEXPECTED,
        ExitCode.SERVER,
        ExitCode.THREADS,
        ExitCode.NOT_VERIFIED,
    }
)
"""Errors of a worker that was ready after which it is started again: another try may succeed. So
may one after an outage."""


class Phase(Enum):
    STARTING = "starting"
    PREPARED = "prepared"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class Act(Enum):
    """What the parent does with a process."""

    START = "start"
    DRAIN = "drain"
    ABORT = "abort"
    KILL = "kill"


@dataclass(slots=True, eq=False)
class Member:
    """One process: the `generation`-th under the number of a worker."""

    number: int
    generation: int
    started: float
    phase: Phase = Phase.STARTING
    ready: float | None = None
    prepared: bool = False
    """Whether it has loaded its modules and found its streams."""
    drain_timeout: float = 25.0
    """The longest one of its pipelines. Until it has loaded them, it is the default."""
    heard: float = float("-inf")
    """When it answered, or got the order to drain."""
    killed: str = ""
    """Why it was killed from here."""

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    def answers(self, now: float) -> bool:
        """Whether it has answered lately. If not, partitions that move to it stay unread."""
        return now - self.heard <= ANSWERED


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended. `reported` is False if it could not say so itself, as after a crash.

    `code` is its exit code, negative for the number of a signal; `text` is its error, in one line.
    `by` is why it ended without an error: "request", "signal", "idle" or "source". `outage`: the
    broker, or what a sink writes to, is away. That is no short life, because workers that run wait.
    """

    code: int
    text: str = ""
    by: str = "request"
    reported: bool = True
    outage: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of the run."""

    code: int
    text: str = ""


@dataclass(slots=True)
class Slot:
    """One worker of the run: its process, the one that replaces it, and its deaths."""

    number: int
    current: Member | None = None
    replacement: Member | None = None
    generations: int = 0
    restarts: int = 0
    short_lives: int = 0
    outages: int = 0
    due: float = 0.0
    since: float = 0.0
    done: bool = False
    was_ready: bool = False
    last_error: str = ""
    died: float | None = None

    @property
    def members(self) -> list[Member]:
        return [it for it in (self.current, self.replacement) if it is not None]

    def waits(self, roll: Roll) -> str:
        """What a roll still waits for at this worker."""
        if roll.old is None:
            return f"worker {self.number} is not ready"
        if self.replacement is None:
            return f"worker {self.number} has not taken over its partitions"
        return f"the new worker {self.number} is not ready; and the old one continues"


@dataclass(slots=True)
class Roll:
    """A roll that is going on: the numbers that are left, and since when its step takes.

    `old` is the process that is being replaced, and None until its replacement has started. A
    process that started after `asked` needs no replacement.
    """

    left: list[int]
    since: float
    total: int
    asked: float
    old: Member | None = None


@dataclass(slots=True)
class Decisions:
    """The state of all workers. Inputs change it, and `act` says what to do about it."""

    count: int | None
    """The number of workers; None until the first worker has said how many partitions there are."""
    cores: int
    draw: Callable[[], float] = lambda: 0.5
    slots: dict[int, Slot] = field(default_factory=dict)
    stopping: bool = False
    verdict: Verdict | None = None
    news: list[str] = field(default_factory=list)
    """Sentences for the log, which the parent takes."""
    roll: Roll | None = None
    rolled: str = ""
    """How the last roll ended."""
    deaths: int = 0
    """Workers that died and were started again, or were to be."""
    _begun: bool = False
    _asked: float | None = None
    """When a roll was asked for that begins as soon as it can."""
    _forced: bool = False
    _killed: bool = False
    _error: Verdict | None = None
    _acts: list[tuple[Act, Member]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._add_slots(1)

    # -- inputs

    def prepared(self, member: Member, partitions: int | None) -> None:
        """A process has loaded its modules and found its streams."""
        member.prepared = True
        if member.phase is Phase.STARTING:
            member.phase = Phase.PREPARED
        if not self._begun:
            self._begun = True
            if self.count is None:
                self.count = max(1, min(self.cores, partitions or 1))
            self._add_slots(self.count)

    def observed(self, member: Member, *, ready: bool, now: float) -> None:
        """What the checks of a process said."""
        member.heard = now
        if ready and member.phase in {Phase.STARTING, Phase.PREPARED}:
            member.phase, member.ready = Phase.READY, now
            slot = self.slots[member.number]
            if slot.was_ready and member is slot.current:
                self.news.append(f"{member.name} is ready again")
            slot.was_ready = True

    def ended(self, member: Member, end: End, now: float) -> None:
        """A process has ended."""
        slot, drained = self.slots[member.number], member.phase is Phase.DRAINING
        short = member.ready is None or now - member.ready < SHORT_LIFE
        member.phase = Phase.ENDED
        self._acts = [(act, it) for act, it in self._acts if it is not member]
        if member is slot.replacement:
            slot.replacement = None
            if not self.stopping:
                self._end_roll(f"the new {member.name} ended: {_why(end)}; the old one continues")
            return
        if member is not slot.current:
            return
        slot.current, slot.since = None, now
        if slot.replacement is not None and not self.stopping:
            slot.current, slot.replacement = slot.replacement, None  # it drained, or died meanwhile
            return
        if drained and not self.stopping:  # a roll has let it end first
            slot.due = now
            return
        self._judge(slot, member, end, short, now)

    def stop(self) -> None:
        """Drain every worker."""
        if not self.stopping:
            self.stopping = True
            if self.roll is not None:
                self._end_roll("the run ends")
            for member in self.members():
                self._drain(member)

    def force(self) -> None:
        """Abandon what is in flight; the second time, kill."""
        self.stop()
        act, self._killed = (Act.KILL, True) if self._forced else (Act.ABORT, False)
        self._forced = True
        self._acts += [(act, member) for member in self.members()]

    def fail(self, code: int, text: str) -> None:
        """End the run with an error. The first one counts."""
        if self._error is None:
            self._error = Verdict(code, text)
        self.stop()

    def start_roll(self, now: float) -> str:
        """Begin to replace the processes one by one. Returns why not, and "" if it has begun."""
        refused = self._no_roll()
        if not refused:
            self._roll(now, asked=now)
        return refused

    def ask_roll(self, now: float) -> str:
        """The same, but after what does not allow it now. Returns what that is."""
        refused = self.start_roll(now)
        if refused and not self.stopping:
            self._asked = now
        return refused

    def looked(self, *, settled: bool, now: float) -> None:
        """Go on with a roll; `settled` says that every partition is read."""
        if self._asked is not None and not self._no_roll():
            self._roll(now, asked=self._asked)
        if self.roll is not None and not self._has_silent(self.roll, now):
            self._go_on(self.roll, settled=settled, now=now)

    # -- what follows

    def act(self, now: float) -> Iterator[tuple[Act, Member]]:
        """What to do now, each once; afterwards `verdict` may be the end of the run."""
        if not self.stopping:
            for slot in self.slots.values():
                if slot.current is None and not slot.done and slot.due <= now:
                    slot.current = self._started(slot, now)
        acts, self._acts = self._acts, []
        for act, member in acts:
            if act is Act.DRAIN:
                member.heard = now
            yield act, member
        yield from ((Act.KILL, member) for member in self._silent_drains(now))
        if not self.members() and (self.stopping or all(it.done for it in self.slots.values())):
            forced = Verdict(ExitCode.FORCED) if self._forced else None
            self.verdict = forced or self._error or Verdict(ExitCode.OK)

    def due(self) -> float | None:
        """When the next process is to be started."""
        if self.stopping:
            return None
        waiting = [it.due for it in self.slots.values() if it.current is None and not it.done]
        return min(waiting, default=None)

    def calm(self, now: float) -> bool:
        """Whether every worker is there, ready and answers, and none is being replaced."""
        return (
            self._begun
            and not self.stopping
            and self.roll is None
            and all(it.phase is Phase.READY and it.answers(now) for it in self.members())
            and all(len(slot.members) == 1 for slot in self.slots.values())
        )

    def members(self) -> list[Member]:
        """The processes that are running."""
        return [member for slot in self.slots.values() for member in slot.members]

    # -- decisions

    def _judge(self, slot: Slot, member: Member, end: End, short: bool, now: float) -> None:
        """What the end of a worker means for the run."""
        failed = not end.reported or end.code != ExitCode.OK
        again = slot.was_ready and (end.outage or end.code in AGAIN)
        if self.stopping:
            if failed and self._error is None:
                self._error = _ended_badly(member, end)
            return
        if not failed and end.by in {"idle", "source"}:
            slot.done = True
        elif failed and end.reported and not again:
            self.fail(end.code, end.text)
        elif not slot.was_ready and not end.reported and _by_itself(member, end):
            self.fail(ExitCode.WORKER, f"{member.name} ended before it was ready: {_why(end)}")
        else:
            if failed:
                self.deaths += 1
                slot.died, slot.last_error = now, _why(end)
                what = f"died: {slot.last_error}"
            else:  # not by this run
                slot.last_error = "stopped by a signal"
                what = f"was {slot.last_error}"
            if end.outage:
                slot.outages += 1
            else:
                slot.outages, slot.short_lives = 0, slot.short_lives + 1 if short else 1
            self._restart(slot, member, what, now)

    def _restart(self, slot: Slot, member: Member, what: str, now: float) -> None:
        if slot.short_lives >= SHORT_LIVES:
            self.fail(
                ExitCode.WORKER,
                f"{member.name} ended {SHORT_LIVES} times within {SHORT_LIFE:.0f} s of its start; "
                f"the last time: {slot.last_error}",
            )
            return
        delay = RESTART.delay(slot.short_lives + slot.outages, self.draw())
        slot.due = now + delay
        slot.restarts += 1
        self.news.append(f"{member.name} {what}; it is started again in {delay:.1f} s")

    def _silent_drains(self, now: float) -> Iterator[Member]:
        """Workers whose drain must be over, and that have not answered since, each once."""
        for member in self.members():
            silent = now - member.heard
            limit = member.drain_timeout + SILENT_DRAIN
            if member.phase is Phase.DRAINING and not member.killed and silent > limit:
                member.killed = (
                    f"{member.name} did not answer for {silent:.0f} s while it drained, and was "
                    "killed: a handler blocks its event loop, or the process was stopped"
                )
                self.news.append(f"{member.killed}; its messages in flight are handled again")
                yield member

    def _started(self, slot: Slot, now: float) -> Member:
        slot.generations += 1
        member = Member(slot.number, slot.generations, now)
        self._acts.append((Act.START, member))
        return member

    def _drain(self, member: Member) -> None:
        if member.phase is not Phase.DRAINING:
            member.phase = Phase.DRAINING
            self._acts.append((Act.DRAIN, member))

    def _no_roll(self) -> str:
        """Why no roll can begin now."""
        if self.stopping:
            return "the run is ending"
        if self.roll is not None:
            return "the workers are being restarted already"
        if not any(slot.was_ready for slot in self.slots.values()):
            return "the workers are starting"
        return ""

    def _roll(self, now: float, *, asked: float) -> None:
        left = [slot.number for slot in self.slots.values() if not slot.done]
        self.roll, self.rolled, self._asked = Roll(left, now, len(left), asked), "", None
        self.news.append(f"restarting {plural(len(left), 'worker')} one by one")

    def _go_on(self, roll: Roll, *, settled: bool, now: float) -> None:
        """Take the next step of a roll, if what it waits for has come."""
        slot = self.slots[roll.left[0]]
        if slot.done:
            self._next(roll, slot, now)
        elif roll.old is not None and roll.old.phase is Phase.DRAINING:
            roll.since = now
        elif now - roll.since > ROLL_PATIENCE:
            for member in slot.members:
                if member is slot.replacement:
                    self._drain(member)
            self._end_roll(f"{slot.waits(roll)} after {ROLL_PATIENCE:.0f} s")
        elif roll.old is None:
            if slot.current is not None and slot.current.phase is Phase.READY:
                roll.old = slot.current
                if slot.current.started <= roll.asked:
                    roll.since, slot.replacement = now, self._started(slot, now)
        elif slot.replacement is not None:
            if slot.replacement.phase is Phase.READY and settled and slot.current is roll.old:
                self._drain(roll.old)
        elif slot.current is not None and slot.current.phase is Phase.READY and settled:
            self.news.append(f"{slot.current.name} is restarted ({roll.total - len(roll.left) + 1} "
                             f"of {roll.total})")  # fmt: skip
            self._next(roll, slot, now)

    def _has_silent(self, roll: Roll, now: float) -> bool:
        """Whether a roll has to wait for a silent worker, which has to end after `SILENT_GRACE`."""
        ending = [it for it in self.members() if it.phase is Phase.DRAINING and it is not roll.old]
        silent = [it for it in self.members() if it.phase is Phase.READY and not it.answers(now)]
        if ending:
            roll.since = now
        elif silent:
            member = min(silent, key=lambda it: it.heard)
            if now - member.heard > SILENT_GRACE:  # one by one: it may be busy, as all may be
                self._drain(member)
                self.news.append(
                    f"{member.name} does not answer: the restart goes on when it has ended, in "
                    f"{member.drain_timeout + SILENT_DRAIN:.0f} s at most"
                )
        return bool(ending or silent)

    def _next(self, roll: Roll, slot: Slot, now: float) -> None:
        roll.left.remove(slot.number)
        roll.since, roll.old = now, None
        if not roll.left:
            self.roll, self.rolled = None, "ok"
            self.news.append("all workers are restarted")

    def _end_roll(self, why: str) -> None:
        self.roll, self.rolled = None, why
        self.news.append(f"the restart of the workers was given up: {why}")

    def _add_slots(self, count: int) -> None:
        for number in range(1, count + 1):
            self.slots.setdefault(number, Slot(number))


def _by_itself(member: Member, end: End) -> bool:
    """Whether a process ended itself, so that the next one would too."""
    return end.code >= 0 or (not member.prepared and -end.code in CRASHES)


def _ended_badly(member: Member, end: End) -> Verdict | None:
    """The error of a run one of whose workers ended like this while all drained."""
    if end.reported:
        return Verdict(end.code, end.text)
    if member.killed:
        return Verdict(ExitCode.DRAIN_TIMEOUT, member.killed)
    if not member.prepared:  # nothing was in flight
        return None
    return Verdict(
        ExitCode.WORKER,
        f"{member.name} died while it drained: {_why(end)}; its messages in flight are handled "
        "again",
    )


def _why(end: End) -> str:
    """The end of a process in words."""
    if end.text:
        return end.text
    return f"killed by {_signal(-end.code)}" if end.code < 0 else f"exit code {end.code}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
