"""What waits for the processors: one queue, or one for each worker's partition; and the blocked.

Where order is kept, a message that failed blocks its key: what comes behind it with the same key
waits until it is settled. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from flowstream.pipeline.deciders.dispatch import Pending
from flowstream.pipeline.message import Message


class Blocked:
    """A key whose `holder` failed and is not settled yet; `behind` waits for it."""

    __slots__ = ("behind", "holder")

    def __init__(self, holder: Message[Any]) -> None:
        self.holder = holder
        self.behind: deque[Message[Any]] = deque()


class Queues:
    """Messages by partition. `ordered` stages keep the order of each key."""

    __slots__ = ("_queues", "behind", "blocked", "ordered", "partitioned")

    def __init__(self, workers: int, *, partitioned: bool) -> None:
        self.partitioned = partitioned
        self.ordered = partitioned or workers == 1
        self.blocked: dict[int, Blocked] = {}
        self.behind = 0
        self._queues: list[Pending[Message[Any]]] = [
            Pending() for _ in range(workers if partitioned else 1)
        ]

    def resize(self, workers: int) -> None:
        """Change the number of workers; with partitions only while nothing is queued or blocked."""
        self.ordered = self.partitioned or workers == 1
        if self.partitioned:
            assert not self.waiting
            self._queues = [Pending() for _ in range(workers)]

    def put(self, messages: list[Message[Any]]) -> set[int]:
        """Queue messages; returns the partitions that have work (empty without partitions)."""
        if not self.partitioned:
            self._queues[0].put(messages)
            return set()
        parts: dict[int, list[Message[Any]]] = {}
        count = len(self._queues)
        for message in messages:
            parts.setdefault(message._hash % count, []).append(message)
        for partition, part in parts.items():
            self._queues[partition].put(part)
        return set(parts)

    def put_front(self, messages: list[Message[Any]]) -> int:
        """Queue messages of one key ahead of everything that waits; returns their partition."""
        partition = messages[0]._hash % len(self._queues) if self.partitioned else 0
        self._queues[partition].put_front(messages)
        return partition

    def take(self, worker: int, count: int) -> list[Message[Any]]:
        return self.of(worker).take(count)

    def of(self, worker: int) -> Pending[Message[Any]]:
        """The queue a worker takes from."""
        return self._queues[worker if self.partitioned else 0]

    @property
    def waiting(self) -> int:
        """Messages that are queued, or wait behind one that failed."""
        return sum(map(len, self._queues)) + self.behind

    def block(self, message: Message[Any]) -> None:
        """The message failed: hold back what comes behind it."""
        key = self._key(message)
        found = self.blocked.get(key)
        if found is None:
            self.blocked[key] = Blocked(message)
        else:
            found.holder = message

    def hold_back(self, message: Message[Any]) -> bool:
        """Keep the message back if its key is blocked by another one."""
        found = self.blocked.get(self._key(message))
        if found is None or found.holder is message:
            return False
        found.behind.append(message)
        self.behind += 1
        return True

    def unblock(self, message: Message[Any]) -> list[Message[Any]]:
        """The message is settled or handed on; returns what waited behind it, in order."""
        key = self._key(message)
        found = self.blocked.get(key)
        if found is None or found.holder is not message:
            return []
        del self.blocked[key]
        self.behind -= len(found.behind)
        return list(found.behind)

    def _key(self, message: Message[Any]) -> int:
        return message._hash if self.partitioned else 0
