"""Who of a group of single active consumers is active: pure decisions, told to sessions as effects.

A group is the consumers of one stream that share a name. Alone, the one that came first is active
until it leaves. In a super stream the active one is the partition's index modulo the members, so
that members spread over the partitions; the former active one then steps down first, and its
successor is promoted after it answered. Source: rabbit_stream_sac_coordinator.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

M = TypeVar("M", bound=Hashable)

ALONE = -1
"""The partition index of a stream that is not consumed as part of a super stream."""


class Status(Enum):
    WAITING = "waiting"
    ACTIVE = "active"
    DEACTIVATING = "deactivating"


@dataclass(frozen=True, slots=True)
class Notice(Generic[M]):
    """Tell `member` that it is active or not; `stepping_down`: promote another when it answers."""

    member: M
    active: bool
    stepping_down: bool = False


@dataclass(slots=True)
class Group(Generic[M]):
    partition_index: int
    members: dict[M, Status] = field(default_factory=dict)

    def active(self) -> M | None:
        """The member that is active or on its way to step down."""
        for member, status in self.members.items():
            if status is not Status.WAITING:
                return member
        return None

    def elected(self) -> M:
        """The member that should be active, whoever is."""
        members = list(self.members)
        return members[0 if self.partition_index == ALONE else self.partition_index % len(members)]


class Coordinator(Generic[M]):
    """All groups, by (stream, consumer name). Members are any hashable, unique values."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Group[M]] = {}

    def register(
        self, stream: str, name: str, partition_index: int, member: M
    ) -> list[Notice[M]] | None:
        """A consumer joins; None when the group has another partition index."""
        group = self.groups.get((stream, name))
        if group is None:
            group = self.groups[stream, name] = Group(partition_index)
        elif group.partition_index != partition_index:
            return None
        alone = not group.members
        group.members[member] = Status.WAITING
        if alone:
            return self._activate(group, member)
        return self._rebalance(group)

    def unregister(self, stream: str, name: str, member: M) -> list[Notice[M]]:
        """A consumer leaves, by choice or with its connection."""
        group = self.groups.get((stream, name))
        if group is None or member not in group.members:
            return []
        del group.members[member]
        if not group.members:
            del self.groups[stream, name]
            return []
        return self._rebalance(group)

    def stepped_down(self, stream: str, name: str) -> list[Notice[M]]:
        """The former active consumer answered: promote the one that should be active."""
        group = self.groups.get((stream, name))
        if group is None:
            return []
        for member in group.members:
            group.members[member] = Status.WAITING
        return self._activate(group, group.elected())

    def _activate(self, group: Group[M], member: M) -> list[Notice[M]]:
        group.members[member] = Status.ACTIVE
        return [Notice(member, active=True)]

    def _rebalance(self, group: Group[M]) -> list[Notice[M]]:
        current = group.active()
        elected = group.elected()
        if current is None:
            return self._activate(group, elected)
        if group.partition_index == ALONE or current == elected:
            return []
        if group.members[current] is Status.DEACTIVATING:
            return []
        group.members[current] = Status.DEACTIVATING
        return [Notice(current, active=False, stepping_down=True)]
