"""What is in flight, in messages and bytes: the bound of everything behind it. Pure.

Credit is demand: a producer's `send` returns only once its messages fit into the window, and a
connector asks its broker for more only then.
"""

from __future__ import annotations


class Window:
    """Admits while there is room. One message always fits into an empty window."""

    __slots__ = ("bytes", "highest", "highest_bytes", "max_bytes", "max_messages", "messages")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.max_messages: int = max_messages
        self.max_bytes: int = max_bytes
        self.messages: int = 0
        self.bytes: int = 0
        self.highest: int = 0
        self.highest_bytes: int = 0

    @property
    def full(self) -> bool:
        return self.messages >= self.max_messages or self.bytes >= self.max_bytes

    def room(self) -> tuple[int, int]:
        """The messages and bytes that fit now; the first message of an empty window always does."""
        if not self.messages:
            return self.max_messages, self.max_bytes
        if self.full:
            return 0, 0
        return self.max_messages - self.messages, self.max_bytes - self.bytes

    def admit(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size
        self.highest = max(self.highest, self.messages)
        self.highest_bytes = max(self.highest_bytes, self.bytes)

    def release(self, messages: int, size: int) -> None:
        self.messages -= messages
        self.bytes -= size


def fitting(sizes: list[int], room: int, *, first: bool) -> int:
    """How many of `sizes`, from the first on, fit into `room` bytes together.

    `first` lets the first one pass whatever its size.
    """
    taken = used = 0
    for size in sizes:
        used += size
        if used > room and not (first and not taken):
            break
        taken += 1
    return taken
