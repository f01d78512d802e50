"""The failure handler: gives finally failed messages to a failure policy, and settles them.

It is one task, so neither workers nor other messages wait for the confirm of a dead letter.
Failures that come while a group is at its policy form the next group.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from flowstream.errors import EnvironmentClosed, FlowstreamError, StreamReplaced
from flowstream.pipeline.context import RunContext
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.handlers.return_checks import discard
from flowstream.pipeline.loops import refuse_loop
from flowstream.pipeline.message import Failure
from flowstream.pipeline.policies import FailurePolicy, OpenPolicy
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
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
BLAMELESS = (EnvironmentClosed, StreamReplaced)
"""Errors that no message caused: they end the run, and leave its messages unsettled."""
DEPTH = 10
"""How many causes of causes are checked."""


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
        self._queue: deque[tuple[list[Failure], Done | None]] = deque()
        self._current: tuple[list[Failure], Done | None] | None = None
        self._arrived = Signal()
        self._open_policies: dict[FailurePolicy, OpenPolicy] = {}
        self._context = context
        state.stages.append(self)

    async def open(self) -> None:
        """Open the pipeline's policy. Others are opened at their first use."""
        await self._opened(self.policy)

    def put(self, failures: list[Failure], done: Done | None = None) -> None:
        """Queue failures for their policy. `done` is called once they are settled or abandoned."""
        if not failures:
            return
        self.state.failures.attempted(failures)
        self.state.failed += len(failures)
        self.waiting += len(failures)
        if self.state.telemetry.active:
            self._tell(failures)
        self._queue.append((failures, done))
        self._arrived.notify()

    def _tell(self, failures: list[Failure]) -> None:
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
        return self.idle

    def flush(self, trigger: str) -> None:
        """Nothing waits here for more messages."""

    def handling(self) -> list[str]:
        """None: a policy is a callback of the run."""
        return []

    async def run(self) -> None:
        """Give failures to their policies until cancelled."""
        while True:
            while self._queue:
                self._current = failures, done = self._queue.popleft()
                await self._dispose(failures)
                self._finish(failures, done)
            self._current = None
            await self._arrived.wait()

    async def crashed(self, error: BaseException) -> None:
        """Halt at the failures that were at their policy."""
        if self._current is not None:
            failures, done = self._current
            left = [f for f in failures if not f.message._delivery.flags[f.message._index]]
            self._halt(left, f"its failure policy broke: {describe(error)}")
            self._finish(failures, done)

    def _finish(self, failures: list[Failure], done: Done | None) -> None:
        self._current = None
        self.waiting -= len(failures)
        if done is not None:
            done(failures)
        self.state.changed.notify()

    async def _dispose(self, failures: list[Failure]) -> None:
        if blameless := [failure for failure in failures if _ends_the_run(failure.error)]:
            self._abandon(blameless, blameless[0].error)
            failures = [failure for failure in failures if failure not in blameless]
        for policy, group in await self._by_policy(failures):
            try:
                opened = await self._opened(policy)
                into = [shown(stream, NAME_SHOWN) for stream in policy.writes()]
                name = f"{type_name(policy)}.handle"
                outcome = await self.state.watched(name, opened.handle(group))
                if outcome not in OUTCOMES:
                    raise TypeError(f"handle returned {shown(outcome)}, not one of {OUTCOMES}")
            except BaseException as error:
                if passes(error):
                    raise
                if _ends_the_run(error):
                    self._abandon(group, error)
                    continue
                told = text_of(error) if is_a(error, FlowstreamError) else describe(error)
                why = f"{group[0].reason} (and {type_name(policy)}: {told})"
                self._halt(group, why)
                continue
            if outcome == "halted":
                self._halt(group)
            else:
                await self.ack_tracker.settle(Slice.of([f.message for f in group]), outcome)
                self.state.failures.disposed(group, outcome, into)
                if outcome == "discarded" and self.state.telemetry.active:
                    self._tell_discarded(group)

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

    def _tell_discarded(self, failures: list[Failure]) -> None:
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
                    "%s: on_failed raised for %r", self.state.name, failure,
                    exc_info=printable(error), extra=self._fields(failure),
                )  # fmt: skip
            return self.policy
        if answer is None:
            return self.policy
        if not issubclass(type(answer), FailurePolicy):
            discard(answer)
            wrong = TypeError(f"on_failed returned {shown(answer)}, not a policy")
            if self._broke(failure, wrong):
                log.error("%s: %s", self.state.name, wrong, extra=self._fields(failure))
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
            manager = policy.open_policy(self._context)
            self._open_policies[policy] = await self._context.enter(manager)
        return self._open_policies[policy]


def _ends_the_run(error: BaseException | None) -> bool:
    """Whether no message caused the error: it, or one of its causes, is one of `BLAMELESS`."""
    for _ in range(DEPTH):
        if error is None or any(is_a(error, kind) for kind in BLAMELESS):
            return error is not None
        error = vars(BaseException)["__cause__"].__get__(error)  # a property of its class could lie
    return False
