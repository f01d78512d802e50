"""The catalogue as a page of documentation, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowstream.metrics.catalogue import CATALOGUE, Group, Metric

TITLES: dict[Group, str] = {
    "flow": "What flows through a pipeline",
    "stages": "Stages, handlers and batches",
    "offsets": "Offsets, commits and partitions",
    "run": "The run",
    "client": "The client: connections, consumers, publishers",
    "process": "The process",
}

HEAD = """\
# Metrics

<!-- Written by `python -m flowstream.metrics > docs/metrics.md`; do not edit. -->

`flowstream run --http` serves these at `/metrics`, in the Prometheus text format or as OpenMetrics,
whichever is asked for. They are counted per slice, batch, commit or connection, never per message.
Values of labels that are not declared (errors, reasons) fold into `other` after 50 different ones.
`/metrics` also has the `process_*` and `python_gc_*` metrics of the Prometheus client.
"""


def document(catalogue: Sequence[Metric] = CATALOGUE) -> str:
    """docs/metrics.md."""
    return "\n".join([HEAD, *_sections(catalogue)]).rstrip() + "\n"


def _sections(catalogue: Sequence[Metric]) -> Iterator[str]:
    for group, title in TITLES.items():
        yield f"## {title}\n"
        yield "| metric | type | labels | what it tells | shown and watched by |"
        yield "| --- | --- | --- | --- | --- |"
        yield from (_row(metric) for metric in catalogue if metric.group == group)
        yield ""


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    used = [*metric.panels, *(f"alert {alert}" for alert in metric.alerts)]
    cells = (
        f"`{metric.full_name}`",
        f"{metric.kind}, {metric.unit}",
        labels,
        metric.help,
        "; ".join(used),
    )
    return f"| {' | '.join(cells)} |"
