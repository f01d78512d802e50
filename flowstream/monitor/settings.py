"""/api/settings: the options of a pipeline as they are in force, as text. Pure.

It shows no secrets: functions and objects of the user are shown by name, since their `repr` may
contain anything, and passwords are removed from what a producer describes of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from flowstream.pipeline import Pipeline, RunningPipeline
from flowstream.schema import options_of
from flowstream.texts import clipped, shown, type_name

LENGTH = 200
HIDDEN = "***"

_PLAIN = (bool, float, str, type(None))
_SECRET = re.compile(r"passw|secret|token|credential|api_?key", re.IGNORECASE)


def settings(pipeline: Pipeline, running: RunningPipeline | None = None) -> list[dict[str, Any]]:
    """The options of the pipeline, its producer and each stage: name, value, whether it is the
    default, and what it is for. `running` adds what was changed since the start."""
    groups = [_group("pipeline", pipeline.name, _options(pipeline.options))]
    groups.append(_group("producer", type_name(pipeline.producer), _producer(pipeline)))
    for kind, each in pipeline.declaration.stages:
        groups.append(_group(kind, each.options.name, _options(each.options)))
    if running is not None:
        _update(groups, running)
    return groups


def _group(kind: str, name: str, options: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, "name": clipped(name, LENGTH), "options": list(options)}


def _options(options: Any) -> Iterator[dict[str, Any]]:
    for item in options_of(type(options)).values():
        value = getattr(options, item.name)
        yield _option(item.name, _text(value), default=value == item.default, about=item.text)


def _producer(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    described: Mapping[str, Any] = pipeline.producer.describe()
    for name, value in described.items():
        key = str(name)
        text = HIDDEN if _SECRET.search(key) and value else _text(value)
        yield _option(key, text, default=False, about="")


def _option(name: str, value: str, *, default: bool, about: str) -> dict[str, Any]:
    return {"name": clipped(name, LENGTH), "value": value, "default": default, "about": about}


def _text(value: Any) -> str:
    """The value as text that contains no secrets."""
    if type(value) is int:
        return f"{value:,}"
    if type(value) in _PLAIN:
        return clipped(str(value), LENGTH)
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value[:4]))})"
    if type(value).__module__.partition(".")[0] == "flowstream":
        return shown(value, LENGTH)
    name = getattr(value, "__qualname__", None)
    return clipped(name, LENGTH) if type(name) is str else type_name(value)


def _update(groups: list[dict[str, Any]], running: RunningPipeline) -> None:
    """Update what can be changed while it runs: the rate limit and the number of workers."""
    now = {stage.name: stage.concurrency for stage in running.statistics().stages}
    for group in groups:
        for option in group["options"]:
            if group["kind"] == "pipeline" and option["name"] == "rate_limit":
                _change(option, _text(running.rate_limit))
            if option["name"] == "concurrency" and group["name"] in now:
                _change(option, str(now[group["name"]]))


def _change(option: dict[str, Any], value: str) -> None:
    if option["value"] != value:
        option |= {"value": value, "default": False, "about": f"{option['about']} (changed)"}
