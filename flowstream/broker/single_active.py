"""Which consumer of a group of single active consumers is active: pure decisions.

Every method returns notices for the members to be notified; it sends nothing itself.

A group is the consumers of one stream that share a name. For a stream of its own, the consumer that
came first is active until it leaves. For a partition of a super stream, the active member is the
one at the partition's index modulo the number of members, so that the partitions are spread over
the members. When members come or go the active one may have to change: then it steps down first,
and its successor becomes active only after the client has answered, so two are never active at
once. Source: rabbit_stream_sac_coordinator.
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
    """`member` becomes active or inactive; if `stepping_down`, its answer promotes another one."""

    member: M
    active: bool
    stepping_down: bool = False


@dataclass(slots=True)
class Group(Generic[M]):
    partition_index: int
    members: dict[M, Status] = field(default_factory=dict)

    def active(self) -> M | None:
        """The member that is active or is stepping down."""
        for member, status in self.members.items():
            if status is not Status.WAITING:
                return member
        return None

    def elected(self) -> M:
        """The member that should be active, whichever is now."""
        members = list(self.members)
        return members[0 if self.partition_index == ALONE else self.partition_index % len(members)]


class Coordinator(Generic[M]):
    """All groups, by (stream, consumer name). Members are any hashable, unique values."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Group[M]] = {}

    def register(
        self, stream: str, name: str, partition_index: int, member: M
    ) -> list[Notice[M]] | None:
        """Add a consumer; None if its group has a different partition index."""
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
        """Remove a consumer that unsubscribed or whose connection ended."""
        group = self.groups.get((stream, name))
        if group is None or member not in group.members:
            return []
        del group.members[member]
        if not group.members:
            del self.groups[stream, name]
            return []
        return self._rebalance(group)

    def stepped_down(self, stream: str, name: str) -> list[Notice[M]]:
        """The client of the former active consumer answered: promote its successor."""
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
