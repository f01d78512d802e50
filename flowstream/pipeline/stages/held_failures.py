"""Failures that wait for the order of the source, before a policy that is `ordered` gets them.

A message that went to several batchers can fail in each of them. Its failures are given to the
policy together, or the later ones are late: the policy disposes of a message once.
"""

from __future__ import annotations

from typing import Any

from flowstream.pipeline.deciders.source_order import SourceOrder, Split
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.slice import Slice

Place = tuple[Any, int]
"""A delivery, and the index of a message in it."""


class HeldFailures:
    """The failures that wait for one policy, until everything before their messages is decided."""

    __slots__ = ("_by_place", "_order", "count")

    def __init__(self) -> None:
        self.count: int = 0
        self._order = SourceOrder()
        self._by_place: dict[Place, list[Failure]] = {}

    @property
    def waits_for(self) -> list[tuple[str, int]]:
        return self._order.waits_for

    def put(self, failures: list[Failure]) -> tuple[list[Failure], list[Failure]]:
        """Add failures. Returns those that may go on now, in order, and those that are late."""
        new: list[Message[Any]] = []
        for failure in failures:
            known = self._by_place.setdefault(_place(failure.message), [])
            if not known:
                new.append(failure.message)
            known.append(failure)
        self.count += len(failures)
        if not new:
            return [], []
        released, late = self._order.put(Slice.of(new))
        return self._taken(released), self._taken(Slice.of(late))

    def settled(self) -> list[Failure]:
        """Messages were settled somewhere. Returns the failures that may go on now."""
        return self._taken(self._order.settled())

    def withdraw(self, split: Split) -> list[Failure]:
        """Take out the failures of messages that shall not be released in this run."""
        return self._taken(Slice.of(self._order.withdraw(split)))

    def _taken(self, part: Slice[Any] | None) -> list[Failure]:
        messages = () if part is None else part.messages
        taken = [failure for message in messages for failure in self._by_place.pop(_place(message))]
        self.count -= len(taken)
        return taken


def _place(message: Message[Any]) -> Place:
    return message._delivery, message._index
