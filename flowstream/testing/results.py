"""What a tester saw of a run, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from flowstream.pipeline import RunResult
from flowstream.texts import record


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """What became of one message.

    `status` is "ok", "dropped", "dead_lettered", "discarded" (policy Drop), "halted", or "open":
    not settled in this run, so the next one gets it again. `data` is what the handlers made of
    it. `reason`, `phase` and `stage` say why and where it failed permanently; `error` is the
    exception, if it was one. `attempts` is how often it was tried in the stage that tried most.
    """

    stream: str
    offset: int
    status: str
    data: Any = None
    reason: str | None = None
    phase: str | None = None
    stage: str | None = None
    error: BaseException | None = None
    attempts: int = 0

    __repr__ = record

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True, slots=True, repr=False)
class HandledBatch:
    """A batch as its handler got it. `error` is what the handler raised."""

    batcher: str
    data: tuple[Any, ...]
    offsets: tuple[int, ...]
    trigger: str
    key: Hashable
    partition: int | None
    attempt: int
    error: BaseException | None = None

    __repr__ = record

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A message in a stream of dead letters: its body, and what its properties say."""

    body: bytes
    stream: str
    offset: int
    phase: str
    stage: str
    attempts: int
    reason: str
    error: str


@dataclass(frozen=True, slots=True, repr=False)
class RunReport(Sequence[Outcome]):
    """What became of messages, in the order of their offsets: a sequence of `Outcome`.

    `batches` are those handled meanwhile, in the order they came to their handlers; `committed`
    the stored offset of each stream. `run` is how the run ended (None while it goes on), `error`
    what ended it, `crashed` whether a `Crash()` did.
    """

    outcomes: tuple[Outcome, ...]
    batches: tuple[HandledBatch, ...]
    committed: Mapping[str, int]
    run: RunResult | None = None
    crashed: bool = False

    @property
    def ok(self) -> bool:
        """Were all messages handled, or dropped on purpose?"""
        return all(outcome.status in ("ok", "dropped") for outcome in self.outcomes)

    @property
    def statuses(self) -> list[str]:
        return [outcome.status for outcome in self.outcomes]

    @property
    def data(self) -> list[Any]:
        """The data of all messages that are "ok"."""
        return [outcome.data for outcome in self.outcomes if outcome.ok]

    @property
    def error(self) -> BaseException | None:
        return None if self.run is None else self.run.error

    def of(self, batcher: str) -> list[HandledBatch]:
        """The batches of one batcher or sink."""
        return [batch for batch in self.batches if batch.batcher == batcher]

    def __repr__(self) -> str:
        counts = Counter(self.statuses)
        text = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no messages"
        bad = next((outcome for outcome in self.outcomes if outcome.reason is not None), None)
        if bad is not None:
            text += f"; first {bad.stream}@{bad.offset} in {bad.stage}: {bad.reason}"
        end = "" if self.run is None else f"; {'crashed' if self.crashed else self.run.reason}"
        return f"<RunReport {text}{end}>"

    @overload
    def __getitem__(self, index: int) -> Outcome: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Outcome, ...]: ...

    def __getitem__(self, index: int | slice) -> Outcome | tuple[Outcome, ...]:
        return self.outcomes[index]

    def __len__(self) -> int:
        return len(self.outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)
