"""What a dashboard consists of, as values; dashboard_json.py turns them into JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["timeseries", "stat", "table", "state-timeline", "heatmap"]

COLUMNS = 24
"""The width of Grafana's grid."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression.

    `legend` names its series; `{{label}}` in it is replaced by the value of the label. `column` is
    the heading of its values in a table.
    """

    expression: str
    legend: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Values of `value` and above have the colour `color`."""

    value: float
    color: Literal["green", "yellow", "orange", "red", "blue"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's name for the unit, `width` is in columns of 24, and `base` is
    the colour below all thresholds.

    `description` says what the panel shows, and which problem a conspicuous value indicates.
    `mappings` replaces values by words. `drill_down` is the uid of the dashboard that a click on a
    series opens; the values of the labels `passing` become its variables.
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
    """Panels under a heading, laid out from left to right, then on the next line."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A selection at the top of a dashboard, among the values of `label` in a metric.

    `series` is the short name of the metric. `single` allows one value at a time; otherwise all
    values are selected at first.
    """

    label: str
    series: str
    title: str
    single: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard. `uid` is its address and, with `.json`, the name of its file."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)
