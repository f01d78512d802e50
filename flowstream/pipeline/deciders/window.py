"""The window: the limit of messages and bytes in flight, which bounds all memory behind it. Pure.

It is also the demand: `send` of a producer returns only once its messages fit into the window, and
a connector gives its broker new credit only then.
"""

from __future__ import annotations


class Window:
    """Admits messages while there is room. An empty window admits any single message."""

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
        """The messages and bytes that fit now. In an empty window the first message always fits."""
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
