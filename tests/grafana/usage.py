"""Which panel shows a metric and which alert watches it, read from the files under grafana/.

python -m tests.grafana.usage    writes flowstream/metrics/usage.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

from flowstream.metrics import CATALOGUE
from tests.grafana.queries import ROOT, asked, panel_queries, rules

FILE = ROOT / "flowstream" / "metrics" / "usage.py"
HEAD = '''\
"""Which dashboard panels show a metric, and which alerts watch it, by the metric's short name.

Written by `python -m tests.grafana.usage` from the files under grafana/.
"""

from __future__ import annotations
'''


def panels() -> dict[str, list[str]]:
    """Panels as "dashboard / panel"."""
    pairs = [
        (f"{query.dashboard.removeprefix('flowstream-')} / {query.panel}", query.expression)
        for query in panel_queries()
    ]
    return _by_metric(pairs)


def alerts() -> dict[str, list[str]]:
    """Alerts by what they ask for, and by what was recorded for them."""
    recorded = {name: rule["expr"] for name, rule in rules("record").items()}
    pairs = []
    for name, rule in rules("alert").items():
        pairs.append((name, rule["expr"]))
        pairs += [
            (name, recorded[series]) for series, _ in asked(rule["expr"]) if series in recorded
        ]
    return _by_metric(pairs)


def _by_metric(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    short = {
        metric.full_name + suffix: metric.name
        for metric in CATALOGUE
        for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
    }
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for user, expression in pairs:
        for series, _ in asked(expression):
            if series in short:
                found[short[series]][user] = None
    return {metric.name: list(found[metric.name]) for metric in CATALOGUE if metric.name in found}


def source() -> str:
    """The module, as ruff formats it."""
    tables = [_table("PANELS", panels()), '"""Panels as "dashboard / panel"."""\n']
    return "\n".join([HEAD, *tables, _table("ALERTS", alerts())])


def _table(name: str, users: Mapping[str, list[str]]) -> str:
    rows = "".join(_row(metric, names) for metric, names in users.items())
    return f"{name}: dict[str, tuple[str, ...]] = {{\n{rows}}}\n"


def _row(metric: str, names: list[str]) -> str:
    quoted = [json.dumps(name) for name in names]
    one_line = f'    "{metric}": ({", ".join(quoted)}{"," if len(quoted) == 1 else ""}),\n'
    if len(one_line) <= 101:
        return one_line
    lines = "".join(f"        {name},\n" for name in quoted)
    return f'    "{metric}": (\n{lines}    ),\n'


if __name__ == "__main__":
    FILE.write_text(source())
