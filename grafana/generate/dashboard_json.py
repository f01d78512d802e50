"""A dashboard as the JSON that Grafana imports and provisions (schema 39: Grafana 11 and later)."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from grafana.generate.model import COLUMNS, Dashboard, Panel, Query, Row, Variable
from grafana.generate.promql import BY_NAME

Json: TypeAlias = dict[str, Any]

SCHEMA_VERSION = 39
TAG = "flowstream"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_BUILT_IN = {"type": "grafana", "uid": "-- Grafana --"}


def to_json(dashboard: Dashboard) -> str:
    """The text of the file of a dashboard."""
    return json.dumps(_dashboard(dashboard), indent=2, ensure_ascii=False) + "\n"


def _dashboard(dashboard: Dashboard) -> Json:
    """A dashboard in the data model of Grafana."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_built_in_annotations(), _alerts()]},
        "links": [_links()],
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": list(_panels(dashboard.rows)),
    }


# -- around the panels


def _built_in_annotations() -> Json:
    return {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "datasource": _BUILT_IN,
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "type": "dashboard",
    }


def _alerts() -> Json:
    return {
        "name": "Firing alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "expr": 'ALERTS{alertname=~"Flowstream.+",alertstate="firing"}',
        "iconColor": "red",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{pipeline}} {{stream}} {{instance}}",
        "step": "30s",
    }


def _links() -> Json:
    return {
        "title": "flowstream",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "options": [],
        "current": {},
    }


def _variable(variable: Variable) -> Json:
    series = BY_NAME[variable.series].full_name
    query = f"label_values({series}, {variable.label})"
    everything = {} if variable.single else {"text": "All", "value": "$__all"}
    return {
        "name": variable.label,
        "label": variable.title,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{variable.label}"},
        "regex": "",
        "hide": 0,
        "multi": not variable.single,
        "includeAll": not variable.single,
        "refresh": 2,  # whenever the time range changes: pipelines come and go
        "sort": 1,
        "options": [],
        "current": everything,
    }


# -- panels


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    number = 0
    top = 0
    for row in rows:
        number += 1
        yield _heading(row, number, top)
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left += panel.width
            tallest = max(tallest, panel.height)
        top += tallest


def _heading(row: Row, number: int, top: int) -> Json:
    place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [
            _target(panel, query, letter)
            for query, letter in zip(panel.queries, string.ascii_uppercase, strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind],
        **({"transformations": _columns(panel)} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, query: Query, letter: str) -> Json:
    instant = panel.kind in ("stat", "table")
    format_ = {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series")
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "format": format_,
        "instant": instant,
        "range": not instant,
        "editorMode": "code",
    }


def _defaults(panel: Panel) -> Json:
    steps: list[Json] = [{"color": panel.base, "value": None}]
    steps += [{"color": each.color, "value": each.value} for each in panel.thresholds]
    defaults: Json = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.kind in _BY_THRESHOLD else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": _mappings(panel.mappings),
        "links": _drill_down(panel),
        "custom": _custom(panel),
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    return defaults


_BY_THRESHOLD = ("stat", "table", "state-timeline")


def _mappings(words: Mapping[str, str]) -> list[Json]:
    options = {value: {"text": text, "index": i} for i, (value, text) in enumerate(words.items())}
    return [{"type": "value", "options": options}] if options else []


def _drill_down(panel: Panel) -> list[Json]:
    if not panel.drill_down:
        return []
    source = "__data.fields" if panel.kind == "table" else "__field.labels"
    passing = [f"var-{label}=${{{source}.{label}}}" for label in panel.passing]
    query = "&".join([*passing, "var-datasource=${datasource}", "${__url_time_range}"])
    return [{"title": "Show details", "url": f"/d/{panel.drill_down}?{query}"}]


def _custom(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        return {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"},
        }
    if panel.kind == "state-timeline":
        return {"fillOpacity": 80, "lineWidth": 0}
    if panel.kind == "table":
        cell = {"type": "auto"}
        return {"align": "auto", "filterable": True, "inspect": False, "cellOptions": cell}
    return {}


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
            "calcs": [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "table": {
        "showHeader": True,
        "cellHeight": "sm",
        "frameIndex": 0,
        "footer": {"show": False, "reducer": ["sum"]},
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.9,
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": False,
            "calcs": [],
        },
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "showValue": "never",
        "color": {
            "mode": "scheme",
            "scheme": "Blues",
            "fill": "dark-blue",
            "reverse": False,
            "scale": "exponential",
            "steps": 64,
            "exponent": 0.5,
        },
        "exemplars": {"color": "red"},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left"},
    },
}


# -- tables


def _columns(panel: Panel) -> list[Json]:
    """The transformations that give one row per set of labels and one column per query."""
    headings = {
        f"Value #{letter}": query.column
        for query, letter in zip(panel.queries, string.ascii_uppercase, strict=False)
    }
    order = {name: i for i, name in enumerate(["Time", *panel.passing, *headings])}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": headings}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]


def _overrides(panel: Panel) -> list[Json]:
    """The units of single series: by the heading of the column in tables, else by the legend."""
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}],
        }
        for name, unit in panel.units.items()
    ]
