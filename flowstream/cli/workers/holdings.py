"""Which worker reads which partition, and whether all of them are read again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNCHANGED = 5.0
"""Seconds without a move after which partitions that nobody here reads count as read elsewhere."""


@dataclass(frozen=True, slots=True)
class Held:
    """The partitions that one worker reads, and all that it knows of."""

    active: frozenset[str]
    known: frozenset[str]


def held_in(snapshot: Mapping[str, Any]) -> Held:
    """What a snapshot of a worker says about partitions."""
    active, known = set(), set()
    for pipeline in snapshot["pipelines"]:
        known.update(pipeline["elsewhere"])
        for stream in pipeline["streams"]:
            known.add(stream["stream"])
            if stream["active"]:
                active.add(stream["stream"])
    return Held(frozenset(active), frozenset(known))


def held_by_pipeline(snapshot: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """The partitions that a worker reads for each pipeline that runs in it."""
    return {
        pipeline["name"]: frozenset(it["stream"] for it in pipeline["streams"] if it["active"])
        for pipeline in snapshot["pipelines"]
        if pipeline["phase"] == "running"
    }


@dataclass(slots=True)
class Holdings:
    """What the workers hold, look after look."""

    _before: Mapping[str, frozenset[str]] = field(default_factory=dict)
    _changed: float = 0.0

    def settled(self, held: Mapping[str, Held], now: float) -> bool:
        """Whether every partition is read: by a worker of this run, or for some time elsewhere."""
        active = {worker: each.active for worker, each in held.items()}
        if active != self._before:
            self._before, self._changed = active, now
        read = frozenset[str]().union(*active.values())
        known = frozenset[str]().union(*(each.known for each in held.values()))
        return bool(held) and (known <= read or now - self._changed >= UNCHANGED)
