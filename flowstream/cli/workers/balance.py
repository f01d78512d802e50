"""Decides which worker subscribes when, so that the load is even. Pure: `now` is an argument.

A broker gives the partition with index i to the consumer at place i modulo n of the partition's n
consumers, which are in the order in which they subscribed. Workers that subscribe at the same time
overtake each other, and the lists of the partitions differ: one worker may get all partitions.

* Workers take turns: each subscribes to all partitions before the next one begins. So all lists
  have the same order. A worker that takes longer than `PATIENCE` does not hold up the others.
* After a lost connection, consumers subscribe again by themselves, in any order. If the load stays
  uneven for `UNEVEN_LASTS`, all workers subscribe again, by the same turns. Consumers of other
  processes may be in the lists: they keep their order, and come first.
* `PAUSE` bounds how often. It doubles with each time, until the load has been even for as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flowstream.cli.workers.decisions import Member
from flowstream.texts import plural

PATIENCE = 15.0
"""Seconds after which the next worker subscribes although this one has not finished."""

UNEVEN_LASTS = 10.0
"""Seconds without a move in which the load must be uneven; up to twice as long, at random, so that
the parents on several machines do not act at the same time."""

PAUSE = 30.0
"""Seconds between two times that the workers subscribe again; it doubles with each of them."""

LONGEST_PAUSE = 3600.0

MUCH = 1.25
"""Times the mean load from which a worker has too much."""


def is_uneven(loads: Sequence[int]) -> bool:
    """Whether partitions should move. A difference of one is never worth it."""
    if len(loads) < 2 or max(loads) - min(loads) < 2:
        return False
    return min(loads) == 0 or max(loads) * len(loads) > MUCH * sum(loads)


@dataclass(slots=True)
class Balance:
    """The turns of one pipeline, and the load of its workers."""

    pipeline: str
    draw: Callable[[], float] = lambda: 0.5
    rebalances: int = 0
    """How often the workers had to subscribe again."""
    uneven: bool = False
    """Whether the load is uneven now."""
    news: list[str] = field(default_factory=list)
    """Sentences for the log, which the parent takes."""
    _first: list[Member] = field(default_factory=list)
    """Workers that subscribe for the first time."""
    _again: list[Member] = field(default_factory=list)
    """Workers that have yet to subscribe again."""
    _current: Member | None = None
    _until: float = 0.0
    _held: Mapping[Member, frozenset[str]] = field(default_factory=dict)
    _since: float = 0.0
    _wait: float = UNEVEN_LASTS
    _rebalancing: bool = False
    _ended: float = float("-inf")
    _pause: float = PAUSE

    # -- inputs

    def asked(self, member: Member) -> None:
        """A worker is about to subscribe, and waits for its turn."""
        self._first.append(member)

    def subscribed(self, member: Member) -> None:
        """A worker has subscribed to all partitions."""
        if member is self._current:
            self._current = None

    def left(self, member: Member) -> None:
        """A worker has ended."""
        self._first = [it for it in self._first if it is not member]
        self._again = [it for it in self._again if it is not member]
        self.subscribed(member)

    def looked(self, held: Mapping[Member, frozenset[str]], *, calm: bool, now: float) -> None:
        """What the workers hold; `calm` says that all are there, ready, and none is replaced."""
        self.uneven = is_uneven([len(each) for each in held.values()])
        if held != self._held or not calm or self.busy:
            self._held, self._since = held, now
            self._wait = UNEVEN_LASTS * (1 + self.draw())
        if not calm:
            self._again.clear()
        elif self.uneven:
            if now - self._since >= self._wait and now - self._ended >= self._pause:
                self._rebalance(held)
        elif now - max(self._since, self._ended) >= self._pause:
            self._pause = PAUSE

    # -- what follows

    def act(self, now: float) -> Iterator[Member]:
        """The workers whose turn it is now; each is named once."""
        if self._current is not None and now >= self._until:
            self._current = None
        if self._current is None:
            waiting = self._first or self._again
            if waiting:
                self._current, self._until = waiting.pop(0), now + PATIENCE
                yield self._current
            elif self._rebalancing:
                self._rebalancing, self._ended = False, now
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def due(self) -> float | None:
        """When a turn ends at the latest."""
        return None if self._current is None else self._until

    @property
    def busy(self) -> bool:
        """Whether a worker subscribes now, or waits for its turn."""
        return self._current is not None or bool(self._first or self._again)

    def _rebalance(self, held: Mapping[Member, frozenset[str]]) -> None:
        self._again = sorted(held, key=lambda member: member.number)
        self._rebalancing = True
        self.rebalances += 1
        loads = {member.number: len(each) for member, each in held.items()}
        most, least = max(loads, key=loads.__getitem__), min(loads, key=loads.__getitem__)
        self.news.append(
            f"the load of {self.pipeline!r} is uneven (worker {most} reads "
            f"{plural(loads[most], 'partition')}, worker {least} reads {loads[least]}): the "
            f"{len(loads)} workers subscribe again, one after the other"
        )


class Balances:
    """The turns of all pipelines of a run."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.by_pipeline: dict[str, Balance] = {}
        self._draw = draw

    def of(self, pipeline: str) -> Balance:
        """That of a pipeline."""
        if pipeline not in self.by_pipeline:
            self.by_pipeline[pipeline] = Balance(pipeline, self._draw)
        return self.by_pipeline[pipeline]

    def left(self, member: Member) -> None:
        """A worker has ended."""
        for each in self.by_pipeline.values():
            each.left(member)

    def looked(
        self, held: Mapping[Member, Mapping[str, frozenset[str]]], *, calm: bool, now: float
    ) -> None:
        """What the workers hold, by pipeline."""
        for pipeline, each in self.by_pipeline.items():
            found = {it: holds[pipeline] for it, holds in held.items() if pipeline in holds}
            each.looked(found, calm=calm and len(found) == len(held), now=now)

    def act(self, now: float) -> Iterator[tuple[str, Member]]:
        """Which worker subscribes now, to the partitions of which pipeline."""
        for pipeline, each in self.by_pipeline.items():
            for member in each.act(now):
                yield pipeline, member

    def due(self) -> float | None:
        """When a turn ends at the latest."""
        found = [each.due() for each in self.by_pipeline.values()]
        return min((it for it in found if it is not None), default=None)

    def take_news(self) -> list[str]:
        """The sentences for the log since the last call."""
        found = [text for each in self.by_pipeline.values() for text in each.news]
        for each in self.by_pipeline.values():
            each.news.clear()
        return found
