"""What a dashboard is made of, as values; dashboard_json.py writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["timeseries", "stat", "table", "state-timeline", "heatmap"]

COLUMNS = 24
"""How wide Grafana's grid is."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression; `legend` names its series, `{{label}}` stands for a label's value.

    `column` heads its values in a table.
    """

    expression: str
    legend: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From `value` on the colour is `color`."""

    value: float
    color: Literal["green", "yellow", "orange", "red", "blue"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `unit` is Grafana's name of it, `width` in columns of 24, `base` the
    colour below every threshold.

    `description` answers: what does it show, and what is wrong when it looks how? `mappings` shows
    words for values. `drill_down` is the uid of the dashboard that a click on a series opens,
    with the labels `passing` as its variables.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    base: Literal["green", "red"] = "green"
    thresholds: tuple[Threshold, ...] = ()
    stacked: bool = False
    maximum: float | None = None
    decimals: int | None = None
    units: dict[str, str] = field(default_factory=dict)
    mappings: dict[str, str] = field(default_factory=dict)
    drill_down: str = ""
    passing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, laid out from left to right and on to the next line."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: the values of `label` in the series of `series`; all unless chosen.

    `single` offers one value at a time.
    """

    label: str
    series: str
    title: str
    single: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page; `uid` is its address and, with `.json`, its file's name."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Every panel, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)
