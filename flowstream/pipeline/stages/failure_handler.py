"""The failure handler: gives finally failed messages to a failure policy, and settles them.

It is one task, so neither workers nor other messages wait for the confirm of a dead letter.
Failures that come while a group is at its policy form the next group.

A policy that is `ordered` gets the failures of a source partition in its order, and none before
all messages before it are decided (stages/held_failures.py). Those that wait are not in the queue,
so they do not hold up failures that they wait for.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from flowstream.errors import FlowstreamError
from flowstream.pipeline.context import RunContext, checked_manager
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.handlers.return_checks import discard
from flowstream.pipeline.loops import refuse_loop
from flowstream.pipeline.message import Failure, ends_the_run
from flowstream.pipeline.policies import FailurePolicy, OpenPolicy
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.held_failures import HeldFailures
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.signals import Signal
from flowstream.telemetry import Dropped, Failed
from flowstream.texts import describe, is_a, printable, shown, text_of, type_name

OUTCOMES = ("dead_lettered", "discarded", "dropped", "ok", "halted")
"""The outcomes that a policy may settle failures with."""

OnFailed = Callable[[Failure], Awaitable[Any]]
Done = Callable[[list[Failure]], None]
NAME_SHOWN = 300
"""Characters of a stream's name in the log."""


class FailureHandler:
    """Gives failures to the pipeline's policy, or to the one that `on_failed` returns."""

    def __init__(
        self,
        state: RunState,
        context: RunContext,
        ack_tracker: AckTracker,
        policy: FailurePolicy,
        on_failed: OnFailed | None,
        *,
        reads: Sequence[str] = (),
    ) -> None:
        self.state = state
        self.ack_tracker = ack_tracker
        self.policy = policy
        self.waiting: int = 0
        self._on_failed = on_failed
        self._reads = reads
        self._queue: deque[_Group] = deque()
        self._released: deque[tuple[FailurePolicy, list[Failure]]] = deque()
        self._current: list[Failure] = []
        self._held: dict[FailurePolicy, HeldFailures] = {}
        self._groups: dict[Failure, _Group] = {}
        self._arrived = Signal()
        self._open_policies: dict[FailurePolicy, OpenPolicy] = {}
        self._context = context
        state.stages.append(self)

    async def open(self) -> None:
        """Open the pipeline's policy. Others are opened at their first use."""
        await self._opened(self.policy)

    def put(
        self,
        failures: list[Failure],
        done: Done | None = None,
        *,
        each: Done | None = None,
        overtake: bool = False,
    ) -> None:
        """Queue failures for their policy. `done` is called once all are settled or abandoned.

        With `overtake` it is called earlier if they have to wait for messages before them. `each`
        is called with those that are settled or abandoned, as soon as they are: one may have to
        wait for a message that waits for another one.
        """
        if not failures:
            return
        self.state.failures.attempted(failures)
        self.state.failed += len(failures)
        self.waiting += len(failures)
        if self.state.telemetry.active:
            self._report(failures)
        group = _Group(failures, done, each, overtake)
        self._groups.update((failure, group) for failure in failures)
        self._queue.append(group)
        self._arrived.notify()

    def _report(self, failures: list[Failure]) -> None:
        kinds: dict[tuple[str, str, str], list[Failure]] = {}
        for failure in failures:
            kinds.setdefault((failure.stage, failure.phase, failure.kind), []).append(failure)
        for (stage, phase, kind), group in kinds.items():
            self.state.emit(
                Failed(self.state.name, stage, phase, kind, len(group), group[0].reason)
            )

    @property
    def idle(self) -> bool:
        """Whether no failure waits for its policy."""
        return not self.waiting

    @property
    def stalled(self) -> bool:
        return self.waiting == self.held

    @property
    def held(self) -> int:
        """How many failures wait for messages before theirs to be decided."""
        return sum(each.count for each in self._held.values())

    @property
    def waits_for(self) -> list[tuple[str, int]]:
        """The undecided messages that failures wait for, by stream and offset."""
        return [place for each in self._held.values() for place in each.waits_for]

    def flush(self, trigger: str) -> None:
        """Nothing waits here for more messages."""

    def handling(self) -> list[str]:
        """None: a policy is a callback of the run."""
        return []

    async def run(self) -> None:
        """Give failures to their policies until cancelled."""
        while True:
            while self._released or self._queue:
                if self._released:
                    policy, failures = self._released.popleft()
                    self._current = failures
                    await self._give(policy, failures)
                else:
                    group = self._queue.popleft()
                    self._current = group.failures
                    await self._dispose(group)
                self._finish(self._current)
            await self._arrived.wait()

    async def crashed(self, error: BaseException) -> None:
        """Halt at the failures that were at their policy."""
        left = [f for f in self._current if not f.message._delivery.flags[f.message._index]]
        if left:
            self._halt(left, f"its failure policy broke: {describe(error)}")
        self._finish(self._current)

    def _finish(self, failures: list[Failure]) -> None:
        """Their messages are settled or abandoned."""
        self._current = []
        self.waiting -= len(failures)
        finished: dict[_Group, list[Failure]] = {}
        for failure in failures:
            finished.setdefault(self._groups.pop(failure), []).append(failure)
        for group, theirs in finished.items():
            group.finish(theirs)
        self.state.changed.notify()

    # -- failures that wait for the order of the source

    def _in_order(
        self, policy: FailurePolicy, failures: list[Failure]
    ) -> tuple[list[Failure], list[Failure]]:
        """Hold failures. Returns those that the policy may be given now, and those that are late:
        the policy had a failure of their message before, or the handler settled it early."""
        held = self._held.setdefault(policy, HeldFailures())
        if self not in self.ack_tracker.orders:
            self.ack_tracker.orders.append(self)
        return held.put(failures)

    def proceed(self) -> None:
        """Messages were settled or abandoned: queue the failures that waited for them."""
        for policy, held in self._held.items():
            if not held.count:
                continue
            if released := held.settled():
                self._released.append((policy, released))
                self._arrived.notify()
            if self.state.halts and (behind := held.withdraw(self.state.split_at_halt)):
                self.ack_tracker.abandon([failure.message for failure in behind])
                self._finish_held(behind)

    def _finish_held(self, failures: list[Failure]) -> None:
        current = self._current
        self._finish(failures)
        self._current = current

    def hurry(self) -> None:
        """No failure waits for more of them."""

    # -- policies

    async def _dispose(self, queued: _Group) -> None:
        failures = queued.failures
        if blameless := [failure for failure in failures if ends_the_run(failure.error)]:
            self._abandon(blameless, blameless[0].error)
            failures = [failure for failure in failures if failure not in blameless]
        for policy, chosen in await self._by_policy(failures):
            given, late = chosen, list[Failure]()
            if policy.ordered:
                given, late = self._in_order(policy, chosen)
                theirs = set(chosen)
                self._current = [f for f in self._current if f not in theirs] + given + late
                if queued.overtake and len(given) + len(late) < len(chosen):
                    queued.done()
            if given:
                await self._give(policy, given)
            if late:
                await self._settle(policy, late, "dead_lettered")
            if policy.ordered:
                self.proceed()  # a halt may have come before the failures

    async def _give(self, policy: FailurePolicy, group: list[Failure]) -> None:
        """Give failures to a policy, and settle their messages as it decides."""
        if policy.ordered and self.state.halts:
            _, behind = self.state.split_at_halt([failure.message for failure in group])
            self.ack_tracker.abandon(behind)
            gone = set(map(id, behind))
            group = [failure for failure in group if id(failure.message) not in gone]
            if not group:
                return
        try:
            opened = await self._opened(policy)
            name = f"{type_name(policy)}.handle"
            outcome = await self.state.watched(name, opened.handle(group))
            if outcome not in OUTCOMES:
                raise TypeError(f"handle returned {shown(outcome)}, not one of {OUTCOMES}")
        except BaseException as error:
            if passes(error):
                raise
            if ends_the_run(error):
                self._abandon(group, error)
                return
            cause = text_of(error) if is_a(error, FlowstreamError) else describe(error)
            self._halt(group, f"{group[0].reason} (and {type_name(policy)}: {cause})")
            return
        if outcome == "halted":
            self._halt(group)
        else:
            await self._settle(policy, group, outcome)

    async def _settle(self, policy: FailurePolicy, group: list[Failure], outcome: str) -> None:
        into = [shown(stream, NAME_SHOWN) for stream in policy.writes()]
        await self.ack_tracker.settle(Slice.of([f.message for f in group]), outcome)
        self.state.failures.disposed(group, outcome, into)
        if outcome == "discarded" and self.state.telemetry.active:
            self._report_discarded(group)

    async def _by_policy(
        self, failures: list[Failure]
    ) -> list[tuple[FailurePolicy, list[Failure]]]:
        groups: dict[FailurePolicy, list[Failure]] = {}
        alone: list[tuple[FailurePolicy, list[Failure]]] = []
        for failure in failures:
            policy = await self._choose(failure)
            try:
                groups.setdefault(policy, []).append(failure)
            except Exception:  # a user's policy without a hash: it halts with this error
                alone.append((policy, [failure]))
        return [*groups.items(), *alone]

    def _abandon(self, failures: list[Failure], error: BaseException | None) -> None:
        """No message caused the error, so none goes to a policy."""
        assert error is not None
        self.state.fail(error)
        self.ack_tracker.abandon([failure.message for failure in failures])

    def _halt(self, failures: list[Failure], reason: str | None = None) -> None:
        for failure in failures:
            self.state.halt(failure, reason)
        self.ack_tracker.abandon([failure.message for failure in failures])

    def _report_discarded(self, failures: list[Failure]) -> None:
        kinds = Counter((failure.message.stream, failure.kind) for failure in failures)
        for (stream, kind), count in kinds.items():
            self.state.emit(Dropped(self.state.name, stream, kind, count, False))

    async def _choose(self, failure: Failure) -> FailurePolicy:
        """The policy that on_failed returns, or the pipeline's; an error of on_failed is logged."""
        if self.state.hooks is not None:
            self.state.hooks.failed(failure)
        if self._on_failed is None:
            return self.policy
        try:
            answer = await self.state.watched("on_failed", self._on_failed(failure))
        except BaseException as error:
            if passes(error):
                raise
            if self._broke(failure, error):
                log.error(
                    "pipeline %r: on_failed raised for %r, which goes to the pipeline's policy",
                    self.state.name, failure,
                    exc_info=printable(error), extra=self._fields(failure),
                )  # fmt: skip
            return self.policy
        if answer is None:
            return self.policy
        if not issubclass(type(answer), FailurePolicy):
            discard(answer)
            wrong = TypeError(f"on_failed returned {shown(answer)}, not a policy such as Drop()")
            if self._broke(failure, wrong):
                log.error(
                    "pipeline %r: %s; %r goes to the pipeline's policy", self.state.name, wrong,
                    failure, extra=self._fields(failure),
                )  # fmt: skip
            return self.policy
        return cast(FailurePolicy, answer)

    def _broke(self, failure: Failure, error: BaseException) -> bool:
        """on_failed itself failed. Returns whether to log it."""
        message = failure.message
        return self.state.failures.broke(
            "on_failed", "on_failed", error, stream=message.stream, offset=message.offset
        )

    def _fields(self, failure: Failure) -> dict[str, Any]:
        """The fields of a log record about a failure."""
        message = failure.message
        return {
            "pipeline": self.state.name,
            "stage": failure.stage,
            "stream": message.stream,
            "offset": message.offset,
        }

    async def _opened(self, policy: FailurePolicy) -> OpenPolicy:
        if policy not in self._open_policies:
            refuse_loop(self.state.name, policy, self._reads)
            place = f"pipeline {self.state.name!r} > {type_name(policy)}.open_policy"
            manager = checked_manager(policy.open_policy(self._context), place)
            self._open_policies[policy] = await self._context.enter(manager)
        return self._open_policies[policy]


class _Group:
    """Failures that were queued together."""

    __slots__ = ("_done", "_each", "_left", "failures", "overtake")

    def __init__(
        self, failures: list[Failure], done: Done | None, each: Done | None, overtake: bool
    ) -> None:
        self.failures = failures
        self.overtake = overtake
        self._done = done
        self._each = each
        self._left = len(failures)

    def finish(self, failures: list[Failure]) -> None:
        """Some of the failures are settled or abandoned."""
        self._left -= len(failures)
        if self._each is not None:
            self._each(failures)
        if not self._left:
            self.done()

    def done(self) -> None:
        """Tell who queued the failures, once."""
        done, self._done = self._done, None
        if done is not None:
            done(self.failures)
