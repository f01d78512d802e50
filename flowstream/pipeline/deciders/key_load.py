"""Which key has the largest share of the messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

WINDOW = 5_000
"""Messages that a share is of; then counting begins anew, so that a key can cool down."""
LEAST = 100
"""Messages from which on a share says something."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class HotKey:
    """The key that the largest `share` (0 to 1) of a stage's recent messages has.

    One worker handles all of it: a share above 1 / `concurrency` is what limits the stage. `sample`
    says where a message with the key is (`orders@1234`), as the key itself may be confidential; it
    is None where no two messages with the key have waited together.
    """

    share: float
    sample: str | None


class KeyLoad(Generic[K]):
    """Counts messages by key, of the last WINDOW of them at most."""

    __slots__ = ("_before", "_counts", "_total")

    def __init__(self) -> None:
        self._counts: dict[K, int] = {}
        self._total: int = 0
        self._before: tuple[K, float] | None = None

    def count(self, key: K, messages: int) -> None:
        """So many messages had this key."""
        self._counts[key] = self._counts.get(key, 0) + messages
        self._total += messages
        if self._total >= WINDOW:
            self._before = self._leader()
            self._counts, self._total = {}, 0

    @property
    def hottest(self) -> tuple[K, float] | None:
        """The key with the largest share, and the share; None while too few were counted."""
        return self._leader() if self._total >= LEAST else self._before

    def _leader(self) -> tuple[K, float]:
        key = max(self._counts, key=self._counts.__getitem__)
        return key, self._counts[key] / self._total
