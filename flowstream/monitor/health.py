"""Readiness from progress, not from a ping: pure checks over the pipelines' statistics.

A pipeline is ready when it runs (or was paused on purpose) and what it received settles. A check
that fails says what it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowstream.pipeline import Statistics

STUCK_AFTER = 60.0
"""Seconds that messages may be in flight while nothing at all settles."""

READY_PHASES = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer."""

    name: str
    ok: bool
    detail: str


def readiness(pipelines: Sequence[Statistics]) -> list[Check]:
    """Every check of every pipeline; ready when all are ok and there is at least one pipeline."""
    if not pipelines:
        return [Check("pipelines", False, "no pipeline has started yet")]
    return [check for each in pipelines for check in (_phase(each), _progress(each))]


def _phase(statistics: Statistics) -> Check:
    ok = statistics.phase in READY_PHASES
    return Check(f"{statistics.pipeline}/phase", ok, f"the run is {statistics.phase}")


def _progress(statistics: Statistics) -> Check:
    stuck = statistics.in_flight > 0 and statistics.progress_age > STUCK_AFTER
    detail = (
        f"{statistics.in_flight} in flight, the last one settled "
        f"{statistics.progress_age:.0f} s ago"
    )
    return Check(f"{statistics.pipeline}/progress", not stuck, detail)
