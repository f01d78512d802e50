"""The parent of a run with workers: it carries out what decisions.py decides.

It starts the worker processes and follows them, asks each for its figures every second, serves
the HTTP endpoints of the run, and prints what workers write. It runs no pipeline, and connects to
the broker only to find it. The embedded broker of a run is its child, not that of a worker.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, overload

import anyio
from anyio.abc import TaskGroup

from flowstream.cli.connection.broker_choice import BrokerChoice, always_there, broker_for_run
from flowstream.cli.event_loop import on_named_signal
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import error_line, note, why
from flowstream.cli.running.reload import child_command
from flowstream.cli.view.live_view import View
from flowstream.cli.workers.balance import Balances
from flowstream.cli.workers.control import serve_control
from flowstream.cli.workers.cores import usable_cores
from flowstream.cli.workers.decisions import Act, Decisions, Member, Phase
from flowstream.cli.workers.holdings import Holdings, held_by_pipeline, held_in
from flowstream.cli.workers.messages import Message
from flowstream.cli.workers.process import WorkerProcess, to_stderr
from flowstream.cli.workers.results import Ended, summed_end
from flowstream.client import Address
from flowstream.monitor import (
    FIGURES,
    SILENT_GRACE,
    Families,
    Request,
    Retired,
    WorkersMonitor,
    WorkerView,
    with_ended,
)

_log = logging.getLogger("flowstream.workers")

LOOK = 1.0
"""Seconds between two looks at every worker. A worker that is killed takes with it what it has
counted since the last one."""
LOOK_OFTEN = 0.25
"""The same while a worker is starting or ending."""
IDLE_LASTS = 3.0
"""Seconds for which a worker that said it is idle counts as idle."""
FORCE_GRACE = 5.0
"""Seconds from the second signal until workers that have not ended are killed: 2 more than they
take themselves."""
ENDED = "stopped"
"""The phase of a pipeline whose source has ended, while others of its process go on."""
EVENTS = 50
"""Entries of the parent's own event log."""
_WARNINGS = ("died", "stopped by", "given up", "uneven", "not answer")
"""Words of news that somebody should see."""
_LOCAL = {"host": "localhost", "content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class ParentPlan:
    """What the parent needs of the options. `count` is None for `auto`.

    With `live` it draws the view of the terminal. With `prefixed` it puts the number of the worker
    before each line that the worker writes.
    """

    count: int | None
    broker: BrokerChoice
    http: tuple[str, int] | None = None
    live: bool = False
    prefixed: bool = True


class Parent:
    """One run of several workers."""

    def __init__(self, plan: ParentPlan) -> None:
        self._plan = plan
        self.decisions: Decisions = Decisions(plan.count, usable_cores(), draw=random.random)
        self.processes: dict[Member, WorkerProcess] = {}
        self._snapshots: dict[Member, Mapping[str, Any]] = {}
        self._families: dict[Member, Families] = {}
        self._idle: dict[tuple[Member, str], float] = {}
        self._all_idle = False
        self._since: dict[Member, tuple[Phase, float]] = {}
        self._reports: list[Message] = []
        self._killed: list[Mapping[str, Any]] = []
        self._targets: dict[str, str] = {}
        self._silent: set[Member] = set()
        self._changes: dict[tuple[str, str], Request] = {}
        self._changed = anyio.Event()
        self._holdings = Holdings()
        self._balances = Balances(random.random)
        self._lent: Message | None = None
        self._finding = anyio.Lock()
        self._broker_check = always_there
        self._stack = AsyncExitStack()
        self._by = ""
        self._signals = 0
        self._events: list[dict[str, Any]] = []
        self._on_terminal = sys.stderr.isatty()
        self.retired: Retired = Retired()
        self._began = anyio.current_time()
        self.monitor: WorkersMonitor = WorkersMonitor(self, lambda: self._events)
        self._view = View(self.monitor, live=plan.live)

    async def run(self) -> Ended:
        """Run until every worker has ended."""
        begin = anyio.current_time()
        async with self._stack, anyio.create_task_group() as group:
            group.start_soon(on_named_signal, self._signalled)
            if self._plan.http is not None:
                await self._listen(group, *self._plan.http)
            group.start_soon(serve_control, self)
            group.start_soon(self._keep_looking)
            group.start_soon(self._view.show)
            while True:
                self._changed = anyio.Event()
                now = anyio.current_time()
                for act, member in self.decisions.act(now):
                    self._do(group, act, member)
                for pipeline, member in self._balances.act(now):
                    self.processes[member].post({"kind": "subscribe", "pipeline": pipeline})
                self._tell_news()
                if self.decisions.verdict is not None:
                    break
                due = [it for it in (self.decisions.due(), self._balances.due()) if it is not None]
                with anyio.move_on_at(max(min(due), now) if due else float("inf")):
                    await self._changed.wait()
            group.cancel_scope.cancel()
        seconds = anyio.current_time() - begin
        assert self.decisions.verdict is not None
        ended = summed_end(
            self._reports, self._killed, self.decisions.verdict, seconds, self._targets
        )
        if self._all_idle:
            ended.idle = ended.results.keys()
        ended.deaths = self.decisions.deaths
        return ended

    def _wake(self) -> None:
        self._changed.set()

    async def _listen(self, group: TaskGroup, host: str, port: int) -> None:
        try:
            host, port = await group.start(self.monitor.run, host, port)
        except OSError as error:
            raise CommandError(
                f"cannot listen on {Address(host, port)}: {why(error)}; "
                "choose another address with --http HOST:PORT",
                ExitCode.USAGE,
            ) from error
        home = f"http://{Address(host, port)}"
        note(f"live page on {home}/, metrics on {home}/metrics")

    # -- processes

    def _do(self, group: TaskGroup, act: Act, member: Member) -> None:
        if act is Act.START:
            process = WorkerProcess(
                member,
                _command,
                count=self._plan.count,
                shown=self._plan.live and sys.stdout.isatty(),
            )
            self.processes[member] = process
            group.start_soon(self._follow, group, process)
            return
        process = self.processes[member]
        if act is Act.DRAIN:
            process.drain(self._by or "flowstream workers restart")
        elif act is Act.ABORT:
            process.abort("a second signal")
            group.start_soon(self._kill_later, process)
        else:
            process.kill_group()

    async def _follow(self, group: TaskGroup, process: WorkerProcess) -> None:
        """Follow a process to its end."""
        member = process.member
        prefix = f"{member.name}: " if self._plan.prefixed else ""

        def heard(message: Message) -> None:
            if message["kind"] == "loaded":
                self._targets |= message["targets"]
                member.drain_timeout = float(message["drain_timeout"])
                group.start_soon(self._lend, process, bool(message["needs_broker"]))
            elif message["kind"] == "prepared":
                if self._plan.count is None and not message["partitions"]:
                    self._refuse_auto()
                self.decisions.prepared(member, int(message["partitions"]))
            elif message["kind"] == "turn":
                self._balances.of(str(message["pipeline"])).asked(member)
            elif message["kind"] == "subscribed":
                self._balances.of(str(message["pipeline"])).subscribed(member)
            elif message["kind"] == "idle":
                self._idle[member, str(message["pipeline"])] = anyio.current_time()
                self._end_if_idle()
            self._wake()

        def write(text: str) -> None:
            if prefix:
                text = "".join(f"{prefix}{line}" for line in text.splitlines(keepends=True))
            to_stderr(text)

        end = await process.run(heard, write)
        self._keep(process)
        self.decisions.ended(member, end, anyio.current_time())
        self._balances.left(member)
        self.processes.pop(member, None)
        self._snapshots.pop(member, None)
        self._wake()

    def _keep(self, process: WorkerProcess) -> None:
        """Keep what an ended process reported and counted."""
        report, snapshot = process.result, self._snapshots.get(process.member)
        families = self._families.pop(process.member, [])
        if report is not None:
            self._reports.append(report)
            figures = report.get("figures")
            if figures is not None:
                snapshot, families = figures["snapshot"], figures["families"]
        elif snapshot is not None:
            self._killed.append(snapshot)
        if snapshot is not None:
            number = process.member.number
            self.retired = with_ended(self.retired, number, snapshot, families)

    def _end_if_idle(self) -> None:
        """Drain all workers once every pipeline of each of them is idle."""
        now = anyio.current_time()
        slots = self.decisions.slots.values()
        if any(slot.current is None or slot.replacement is not None for slot in slots):
            return
        for member in self.decisions.members():
            if member.phase is not Phase.READY:
                return
            for pipeline in self._snapshots[member]["pipelines"]:
                if pipeline["phase"] == ENDED:
                    continue
                if now - self._idle.get((member, pipeline["name"]), -IDLE_LASTS) >= IDLE_LASTS:
                    return
        self._by, self._all_idle = self._by or "--until-idle", True
        self.decisions.stop()

    async def _kill_later(self, process: WorkerProcess) -> None:
        await anyio.sleep(FORCE_GRACE)
        process.kill_group()

    def _refuse_auto(self) -> None:
        note("--workers auto: 1 worker, because a pipeline reads no super stream with "
             "single_active=True, which several workers could share")  # fmt: skip

    # -- the broker

    async def _lend(self, process: WorkerProcess, needed: bool) -> None:
        """Tell a worker which broker to use. It is found for the first one that needs it."""
        lent: Message = {"url": None, "creates": False, "remedy": ""}
        if needed:
            async with self._finding:
                if self._lent is None:
                    try:
                        self._lent = await self._find_broker()
                    except Exception as error:
                        self._by = "the run, which has no broker"
                        self.decisions.fail(*error_line(error))
                        process.signal(signal.SIGKILL)
                        self._wake()
                        return
                lent = self._lent
        process.post({"kind": "broker", **lent})

    async def _find_broker(self) -> Message:
        used = await self._stack.enter_async_context(broker_for_run(self._plan.broker))
        for line in used.lines:
            note(line)
        self._broker_check = used.check
        own = used.connection.url if used.creates else None
        return {"url": own, "creates": used.creates, "remedy": used.remedy}

    # -- what workers show

    async def _keep_looking(self) -> None:
        """Ask every worker for its figures, go on with a roll, and look at the broker."""
        while True:
            calm = all(it.phase is Phase.READY for it in self.processes)
            await anyio.sleep(LOOK if calm and self.decisions.roll is None else LOOK_OFTEN)
            await self.look()
            held = {
                f"{member.number}/{member.generation}": held_in(snapshot)
                for member, snapshot in self._snapshots.items()
                if member.phase is not Phase.ENDED
            }
            self._note_silence()
            now = anyio.current_time()
            self.decisions.looked(settled=self._holdings.settled(held, now), now=now)
            self._balances.looked(
                {it: held_by_pipeline(found) for it, found in self._snapshots.items()},
                calm=self._calm(now),
                now=now,
            )
            if not self.decisions.stopping:
                try:
                    self._broker_check()
                except CommandError as error:
                    self._by = "the run, because its broker has ended"
                    self.decisions.fail(*error_line(error))
            self._wake()

    def _calm(self, now: float) -> bool:
        """Whether all workers are there, and all of their checks pass."""
        found = [self._snapshots.get(member) for member in self.decisions.members()]
        return self.decisions.calm(now) and all(it and not it["not_ready"] for it in found)

    def _note_silence(self) -> None:
        """Report a worker whose figures are old, and when it answers again."""
        was, self._silent = self._silent, set()
        for member in self._snapshots:
            if self._silence(member) > SILENT_GRACE:
                self._silent.add(member)
                if member not in was:
                    self.decisions.news.append(
                        f"{member.name} has not answered for {SILENT_GRACE:.0f} s: a handler "
                        "blocks its event loop, or the process is stopped"
                    )
            elif member in was and member.phase is Phase.READY:
                self.decisions.news.append(f"{member.name} answers again")

    def _silence(self, member: Member) -> float:
        """The seconds since a ready worker answered for the last time."""
        if member not in self._snapshots or member.phase is not Phase.READY:
            return 0.0
        return anyio.current_time() - member.heard

    async def look(self) -> None:
        """Ask every worker for its figures."""
        async with anyio.create_task_group() as group:
            for member, process in list(self.processes.items()):
                group.start_soon(self._look, member, process)

    async def _look(self, member: Member, process: WorkerProcess) -> None:
        response = await process.ask(Request("GET", FIGURES, {}, _LOCAL))
        if response is None or response.status != HTTPStatus.OK or member not in self.processes:
            return
        figures = json.loads(response.body)
        snapshot = self._snapshots[member] = figures["snapshot"]
        self._families[member] = figures["families"]
        running = bool(snapshot["pipelines"]) and not snapshot["starting"]
        was = member.phase
        ready = running and not _hinders(snapshot)
        self.decisions.observed(member, ready=ready, now=anyio.current_time())
        if was is not Phase.READY and member.phase is Phase.READY:
            for change in self._changes.values():
                await process.ask(change)

    def views(self) -> Sequence[WorkerView]:
        """Every process that is running, and every worker that waits for one."""
        found = []
        for slot in self.decisions.slots.values():
            for member in slot.members:
                process = self.processes.get(member)
                found.append(
                    WorkerView(
                        slot.number,
                        "starting" if member.phase is Phase.PREPARED else member.phase.value,
                        self._since_of(member),
                        None if process is None else process.pid,
                        slot.restarts,
                        slot.last_error,
                        member is slot.replacement,
                        self._silence(member),
                        _when(slot.died),
                        self._snapshots.get(member),
                        self._families.get(member, ()),
                        None if process is None else process.ask,
                    )
                )
            if not slot.members and not slot.done and not self.decisions.stopping:
                # A worker that had no process yet waits since the run began.
                since = _when(max(self._began, slot.since))
                found.append(WorkerView(slot.number, "waiting", since, restarts=slot.restarts,
                                        last_error=slot.last_error,
                                        died=_when(slot.died)))  # fmt: skip
        return found

    def _since_of(self, member: Member) -> float:
        phase = Phase.STARTING if member.phase is Phase.PREPARED else member.phase
        known = self._since.get(member)
        if known is None or known[0] is not phase:
            known = self._since[member] = (phase, anyio.current_time())
            for other in self._since.keys() - self.processes.keys() - {member}:
                del self._since[other]
        return _when(known[1])

    @property
    def started(self) -> float:
        """When the run began, by the clock of the system."""
        return _when(self._began)

    def controlled(self, request: Request, pipeline: str, action: str) -> None:
        """Remember a change for workers that start later."""
        kind = "rate_limit" if action == "rate_limit" else "pause"
        self._changes[pipeline, kind] = request

    # -- signals and news

    def _signalled(self, by: str) -> None:
        if by == "SIGHUP" and not self._terminal_closed():
            refused = self.decisions.ask_roll(anyio.current_time())
            if refused:
                note(f"SIGHUP: {refused}{'' if self.decisions.stopping else '; a restart follows'}")
            self._wake()
            return
        self._signals += 1
        self._by = self._by or by
        if self._signals == 1:
            with suppress(OSError):  # the terminal may be closed
                note(
                    "draining: received messages are finished and committed; repeat to end at once"
                )
            self.decisions.stop()
        else:
            self.decisions.force()
        self._wake()

    def _terminal_closed(self) -> bool:
        """Whether SIGHUP came because the terminal of the run was closed."""
        if not self._on_terminal:
            return False
        try:
            os.tcgetpgrp(sys.stderr.fileno())
        except (OSError, ValueError):
            return True
        return False

    def _tell_news(self) -> None:
        news, self.decisions.news = self.decisions.news, []
        for text in [*news, *self._balances.take_news()]:
            bad = any(it in text for it in _WARNINGS)
            self._events.append({"at": time.time(), "level": "warning" if bad else "info",
                                 "pipeline": None, "text": text, "count": 1})  # fmt: skip
            _log.log(logging.WARNING if bad else logging.INFO, "%s", text)
        del self._events[:-EVENTS]


def _hinders(snapshot: Mapping[str, Any]) -> bool:
    """Whether a check fails, other than because a source has ended."""
    ended = {it["name"] for it in snapshot["pipelines"] if it["phase"] == ENDED}
    return any(
        it["check"] != "phase" or it["pipeline"] not in ended for it in snapshot["not_ready"]
    )


@overload
def _when(time_of_loop: float) -> float: ...
@overload
def _when(time_of_loop: None) -> None: ...
def _when(time_of_loop: float | None) -> float | None:
    """A time of the event loop in seconds since 1970."""
    return None if time_of_loop is None else time.time() - (anyio.current_time() - time_of_loop)


def _command(handle: int) -> list[str]:
    """The command line of a worker: that of this process, with the number of the socket."""
    return child_command(sys.argv[1:], f"--worker={handle}")
