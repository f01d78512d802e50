"""Builds PromQL from the catalogue: a metric or label that the catalogue lacks is a ValueError.

panels = Promql({"pipeline": "=~$pipeline", "instance": "=~$instance"}, "$__rate_interval")
panels.rate("settled_messages", "outcome", outcome="!=ok")
# sum by (outcome) (rate(flowstream_settled_messages_total{
#   pipeline=~"$pipeline",instance=~"$instance",outcome!="ok"}[$__rate_interval]))
"""

from __future__ import annotations

from collections.abc import Mapping

from flowstream.metrics import CATALOGUE, Metric

TARGET_LABELS = ("job", "instance", "worker")
"""Labels that every series may have: Prometheus adds those of the target that it scraped, and the
parent of `run --workers` the number of the worker."""

PROCESS = ("instance", "worker")
"""The labels that name a process. Without `--workers`, no series has the label `worker`; Prometheus
treats that like an empty one."""
NAMED = "{{instance}} {{worker}}"
"""A process in a legend."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in CATALOGUE}

_OPERATORS = ("=~", "!~", "!=")


class Promql:
    """Queries with `matchers` on every series that has the label, over ranges of `window`.

    A matcher is the value that the label must equal, or an operator with a value: `"=~a|b"`,
    `"!=ok"`.
    """

    def __init__(self, matchers: Mapping[str, str], window: str) -> None:
        self._matchers = dict(matchers)
        self._window = window

    def matching(self, **matchers: str) -> Promql:
        """The same queries with additional matchers."""
        return Promql({**self._matchers, **matchers}, self._window)

    def series(self, name: str, **where: str) -> str:
        """The series of a metric by its short name; with a suffix ("x_bucket") for a histogram."""
        metric, suffix = _find(name)
        _check(metric, where)
        known = {*metric.labels, *TARGET_LABELS}
        matchers = {k: v for k, v in self._matchers.items() if k in known} | where
        inside = ",".join(_matcher(label, value) for label, value in matchers.items())
        return metric.full_name + suffix + (f"{{{inside}}}" if inside else "")

    def rate(self, name: str, *by: str, **where: str) -> str:
        """The increase of a counter per second, summed by the labels `by`."""
        return self._over("rate", name, by, where)

    def increase(self, name: str, *by: str, **where: str) -> str:
        """The increase of a counter over the window, summed by the labels `by`."""
        return self._over("increase", name, by, where)

    def fold(self, how: str, name: str, *by: str, **where: str) -> str:
        """A gauge aggregated with `how` ("sum", "max", "min", ...) by the labels `by`."""
        return fold(how, self.series(name, **where), *_checked(name, by))

    def quantile(self, q: float, name: str, *by: str, **where: str) -> str:
        """A quantile of a histogram."""
        buckets = self._over("rate", f"{name}_bucket", (*by, "le"), where)
        return f"histogram_quantile({q:g}, {buckets})"

    def mean(self, name: str, *by: str, **where: str) -> str:
        """The mean of a histogram's observations."""
        total = self._over("rate", f"{name}_sum", by, where)
        return f"{total}\n/\n{self._over('rate', f'{name}_count', by, where)}"

    def mean_so_far(self, name: str, *by: str) -> str:
        """The mean of all observations since the processes started; for rare events."""
        return (
            f"{self.fold('sum', f'{name}_sum', *by)}\n/\n{self.fold('sum', f'{name}_count', *by)}"
        )

    def _over(self, function: str, name: str, by: tuple[str, ...], where: Mapping[str, str]) -> str:
        series = f"{function}({self.series(name, **where)}[{self._window}])"
        return fold("sum", series, *_checked(name, by))


def fold(how: str, expression: str, *by: str) -> str:
    """An expression aggregated with `how` by the labels `by`."""
    grouping = f" by ({', '.join(by)})" if by else ""
    return f"{how}{grouping} ({expression})"


def _find(name: str) -> tuple[Metric, str]:
    """The metric of a series by its short name, and the suffix of a histogram's series."""
    if name in BY_NAME and BY_NAME[name].kind != "histogram":
        return BY_NAME[name], ""
    base, _, suffix = name.rpartition("_")
    if base in BY_NAME and BY_NAME[base].kind == "histogram" and suffix in _SUFFIXES:
        return BY_NAME[base], f"_{suffix}"
    raise ValueError(f"the catalogue has no metric with the series {name!r}")


_SUFFIXES = ("bucket", "sum", "count")


def _checked(name: str, by: tuple[str, ...]) -> tuple[str, ...]:
    metric, suffix = _find(name)
    _check(metric, by if suffix != "_bucket" else [label for label in by if label != "le"])
    return by


def _check(metric: Metric, labels: object) -> None:
    unknown = set(labels) - {*metric.labels, *TARGET_LABELS}  # type: ignore[call-overload]
    if unknown:
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}")


def _matcher(label: str, value: str) -> str:
    operator = next((each for each in _OPERATORS if value.startswith(each)), "")
    return f'{label}{operator or "="}"{value.removeprefix(operator)}"'
