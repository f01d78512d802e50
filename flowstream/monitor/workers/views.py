"""What is known of each worker process, and of those that have ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from flowstream.monitor.http import Request, Response

Snapshot: TypeAlias = Mapping[str, Any]
Families: TypeAlias = Sequence[Sequence[Any]]
"""The metrics of a process: name, type, help, unit and samples of each."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One process of the run. `ask` returns None if it does not answer in time.

    `since` is when it reached its `state`. A `replacement` runs beside the process that it is about
    to replace: it has the same number. `silent` is for how many seconds it has not answered. `died`
    is when a process with this number died last, for the reason `last_error`; None if none has.
    """

    number: int
    state: str
    since: float
    pid: int | None = None
    restarts: int = 0
    last_error: str = ""
    replacement: bool = False
    silent: float = 0.0
    died: float | None = None
    snapshot: Snapshot | None = None
    families: Families = ()
    ask: Callable[[Request, float], Awaitable[Response | None]] | None = None


@dataclass(slots=True)
class Retired:
    """What the processes counted that have ended: snapshots, and metrics by number of worker."""

    snapshots: list[Snapshot] = field(default_factory=list)
    families: list[tuple[int, Families]] = field(default_factory=list)


class WorkersOfRun(Protocol):
    """The workers of a run, as the parent knows them."""

    async def look(self) -> None:
        """Ask every worker for its figures now. `views` and `retired` have them afterwards."""

    def views(self) -> Sequence[WorkerView]:
        """Every process that is running, and every worker that waits for one."""

    @property
    def retired(self) -> Retired:
        """What ended processes counted."""

    @property
    def started(self) -> float:
        """When the run began, in seconds since 1970."""

    def controlled(self, request: Request, pipeline: str, action: str) -> None:
        """Remember a change that every worker has made, for those that start later."""
