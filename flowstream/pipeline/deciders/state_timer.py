"""How long something has been in each of its states. Pure: `now` is given."""

from __future__ import annotations


class StateTimer:
    """The seconds spent in each state, of something that is in one state at a time."""

    __slots__ = ("_since", "_state", "_totals")

    def __init__(self, state: str, now: float) -> None:
        self._state = state
        self._since = now
        self._totals: dict[str, float] = {}

    def enter(self, state: str, now: float) -> None:
        """It is in `state` from now on."""
        self._totals[self._state] = self._totals.get(self._state, 0.0) + now - self._since
        self._state, self._since = state, now

    def until(self, now: float) -> dict[str, float]:
        """The seconds so far, the state it is in included."""
        totals = dict(self._totals)
        totals[self._state] = totals.get(self._state, 0.0) + now - self._since
        return totals
