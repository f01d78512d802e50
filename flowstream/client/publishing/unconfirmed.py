"""The messages of a publisher that are not confirmed yet. Pure.

Messages are kept in entries, and an entry becomes one frame. An entry is queued, then sent, and is
dropped when all of its messages are settled: confirmed or failed. After a reconnect `rewind` queues
everything that was sent again, before anything new and with the same ids. So no message is lost and
the order is kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import anyio


class Waiter:
    """A caller waits until `remaining` publishing ids are settled; `failures` collects errors."""

    __slots__ = ("failures", "remaining", "settled")

    def __init__(self, remaining: int = 1) -> None:
        self.remaining: int = remaining
        self.failures: list[tuple[int, int]] = []
        self.settled: Final = anyio.Event()

    def settle(self, count: int) -> None:
        self.remaining -= count
        if self.remaining <= 0:
            self.settled.set()


class Entry:
    """Messages that are sent in one frame.

    `items` are bodies, or sub-entries (then `batched` is True), each with one publishing id. `ids`
    is None if the ids count up from `first` without gaps. `size` is the bytes in a frame. `left` is
    the number of ids that are not settled; `settled` has the others, if only some are settled.
    """

    __slots__ = (
        "accepted_at",
        "batched",
        "filters",
        "first",
        "ids",
        "items",
        "last",
        "left",
        "settled",
        "size",
        "waiters",
    )

    def __init__(
        self,
        items: list[Any],
        size: int,
        *,
        ids: list[int] | None = None,
        filters: list[str | None] | None = None,
        batched: bool = False,
    ) -> None:
        self.items: list[Any] = items
        self.size: int = size
        self.ids: list[int] | None = ids
        self.filters: list[str | None] | None = filters
        self.batched: bool = batched
        self.left: int = len(items)
        self.first: int = 0
        self.last: int = 0
        self.accepted_at: float = 0.0
        self.settled: set[int] | None = None
        self.waiters: list[tuple[int, int, Waiter]] | None = None

    @property
    def publishing_ids(self) -> Sequence[int]:
        return self.ids if self.ids is not None else range(self.first, self.last + 1)

    @property
    def messages(self) -> int:
        if self.batched:
            return sum(batch.records for batch in self.items)
        return len(self.items)

    def accept(self, next_id: int, now: float, waiter: Waiter | None) -> None:
        """Assigns the ids: the given ones, or from `next_id` on."""
        self.accepted_at = now
        self.first, self.last = (
            (self.ids[0], self.ids[-1]) if self.ids else (next_id, next_id + len(self.items) - 1)
        )
        if waiter is not None:
            self.waiters = [(self.first, self.last, waiter)]

    def unsettled(self) -> list[int]:
        """The positions of the items that are not settled."""
        settled = self.settled
        if settled is None:
            return list(range(len(self.items))) if self.left else []
        return [i for i, number in enumerate(self.publishing_ids) if number not in settled]

    def settle(self, ordered: Sequence[int], start: int, end: int) -> None:
        """Marks `ordered[start:end]`, ascending ids of this entry, as settled."""
        if end - start >= self.left and self.settled is None:
            self.left = 0
        else:
            settled = self.settled = self.settled or set()
            settled.update(ordered[start:end])
            self.left = len(self.items) - len(settled)
        for first, last, waiter in self.waiters or ():
            low = bisect_left(ordered, first, start, end)
            waiter.settle(bisect_right(ordered, last, low, end) - low)


class Unconfirmed:
    """The entries of a publisher in order, with the total of their `messages` and `bytes`."""

    __slots__ = ("_queued", "_sent", "bytes", "messages")

    def __init__(self) -> None:
        self._queued: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()
        self.messages: int = 0
        self.bytes: int = 0

    @property
    def queued(self) -> bool:
        return bool(self._queued)

    @property
    def oldest(self) -> Entry | None:
        """The first entry that is not settled."""
        if self._sent:
            return self._sent[0]
        return self._queued[0] if self._queued else None

    def settled_through(self, publishing_id: int) -> bool:
        """Whether everything up to this id is settled."""
        oldest = self.oldest
        return oldest is None or oldest.first > publishing_id

    def append(self, entry: Entry) -> None:
        self._queued.append(entry)
        self.messages += entry.messages
        self.bytes += entry.size

    def take(self) -> Entry | None:
        """The next entry to write; it counts as sent from now on."""
        if not self._queued:
            return None
        entry = self._queued.popleft()
        self._sent.append(entry)
        return entry

    def rewind(self) -> None:
        """Queues everything that was sent and is not settled again, before the rest."""
        self._queued.extendleft(entry for entry in reversed(self._sent) if entry.left)
        self._sent.clear()

    def settle(self, publishing_ids: Sequence[int]) -> int:
        """Settles these ids, in any order; ignores unknown ones. Returns the number of messages."""
        before = self.messages
        ordered = sorted(publishing_ids)
        position, count = 0, len(ordered)
        for entry in self._sent:
            if position >= count:
                break
            if ordered[position] > entry.last:
                continue
            if ordered[position] < entry.first:
                position = bisect_left(ordered, entry.first, position)
            start, position = position, bisect_right(ordered, entry.last, position)
            if position > start and entry.left:
                self._settle(entry, ordered, start, position)
        while self._sent and self._sent[0].left == 0:
            self._sent.popleft()
        return before - self.messages

    def _settle(self, entry: Entry, ordered: Sequence[int], start: int, end: int) -> None:
        before = entry.left
        if entry.batched:
            places = {number: i for i, number in enumerate(entry.publishing_ids)}
            self.messages -= sum(entry.items[places[n]].records for n in ordered[start:end])
            entry.settle(ordered, start, end)
        else:
            entry.settle(ordered, start, end)
            self.messages -= before - entry.left
        if entry.left == 0:
            self.bytes -= entry.size

    def fail(self, errors: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Settles `(publishing id, code)` pairs as failed.

        Waiters get their own; those that no caller waits for are returned.
        """
        reported = set()
        for entry in self._sent:
            for first, last, waiter in entry.waiters or ():
                theirs = [error for error in errors if first <= error[0] <= last]
                waiter.failures += theirs
                reported.update(theirs)
        self.settle([number for number, _ in errors])
        return [error for error in errors if error not in reported]

    def expire(self, accepted_before: float) -> list[int]:
        """Drops entries accepted up to this time; returns the ids that no caller waits for."""
        expired: list[int] = []
        for entries in (self._sent, self._queued):
            while entries and entries[0].accepted_at <= accepted_before:
                expired += self._drop(entries.popleft())
        return expired

    def _drop(self, entry: Entry) -> list[int]:
        if not entry.left:
            return []
        positions = entry.unsettled()
        ids = entry.publishing_ids
        lost = [ids[i] for i in positions]
        items = entry.items
        self.messages -= sum(items[i].records for i in positions) if entry.batched else len(lost)
        self.bytes -= entry.size
        entry.left = 0
        for first, last, waiter in entry.waiters or ():
            theirs = [number for number in lost if first <= number <= last]
            waiter.failures += [(number, 0) for number in theirs]
            waiter.settle(len(theirs))
            lost = [number for number in lost if not first <= number <= last]
        return lost
