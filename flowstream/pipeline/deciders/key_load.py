"""Finds the key with the largest share of the messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

WINDOW = 5_000
"""After so many messages counting starts again, so that an old peak is forgotten."""
LEAST = 100
"""The number of messages below which no share is reported."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class HotKey:
    """The key of the largest `share` (0 to 1) of a stage's recent messages.

    One worker handles all messages of a key, so a share above 1 / `concurrency` limits the stage.
    `sample` is the place of a message with the key (`orders@1234`), because the key itself may be
    confidential. It is None until two messages with the key have waited at the same time.
    """

    share: float
    sample: str | None


class KeyLoad(Generic[K]):
    """Counts the messages of each key, among at most the last WINDOW messages."""

    __slots__ = ("_before", "_counts", "_total")

    def __init__(self) -> None:
        self._counts: dict[K, int] = {}
        self._total: int = 0
        self._before: tuple[K, float] | None = None

    def count(self, key: K, messages: int) -> None:
        """Add messages with this key."""
        self._counts[key] = self._counts.get(key, 0) + messages
        self._total += messages
        if self._total >= WINDOW:
            self._before = self._leader()
            self._counts, self._total = {}, 0

    @property
    def hottest(self) -> tuple[K, float] | None:
        """The key with the largest share, and the share; None below LEAST messages."""
        return self._leader() if self._total >= LEAST else self._before

    def _leader(self) -> tuple[K, float]:
        key = max(self._counts, key=self._counts.__getitem__)
        return key, self._counts[key] / self._total
