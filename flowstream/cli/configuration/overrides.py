"""Options of a pipeline from the settings, put over those of its declaration."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowstream.cli.configuration.models import PIPELINES
from flowstream.cli.configuration.settings import PYPROJECT, Origin, names_of, settings
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Pipeline, RateLimit

_log = logging.getLogger("flowstream.run")

NEAR = 0.75
"""The similarity of two names above which one may be a misspelling of the other."""


def override(pipeline: Pipeline) -> dict[str, Origin]:
    """Change the pipeline's options; returns the origin of each option that was changed.

    Raises ConfigurationError, with the origins, for options that do not fit the declaration.
    """
    found = settings().overrides(pipeline.name)
    values: dict[str, Any] = {name: value for name, (value, _) in found.items()}
    messages, size = values.pop("rate_limit", None), values.pop("rate_limit_bytes", None)
    try:
        if messages is not None or size is not None:
            values["rate_limit"] = RateLimit(messages, bytes=size)
        pipeline.configure(**values)
    except ConfigurationError as error:
        places = ", ".join(str(origin) for _, origin in found.values())
        raise ConfigurationError(f"{error} (configured by {places})") from None
    return {name: origin for name, (_, origin) in found.items()}


def log_overrides(pipeline: str, changed: Mapping[str, Origin]) -> None:
    """Log which options differ from the declaration, and their origins."""
    if changed:
        options = ", ".join(f"{name} by {origin}" for name, origin in changed.items())
        _log.info(
            "pipeline %r: configured beside its declaration: %s", pipeline, options,
            extra={"pipeline": pipeline},
        )  # fmt: skip


def unused(pipelines: Iterable[str]) -> Iterator[str]:
    """Notes on settings of pipelines that have no effect, because no pipeline has their name.

    Variables are meant for this run. Tables in pyproject.toml may be for other pipelines, so they
    are reported only if the name is similar to that of a pipeline here.
    """
    there = list(pipelines)
    known = {name for pipeline in there for name in names_of(pipeline)}
    for key, origin in settings().origins.items():
        if not key.startswith(f"{PIPELINES}."):
            continue
        name = key.removeprefix(f"{PIPELINES}.").rpartition(".")[0]
        near = difflib.get_close_matches(name, known, 1, NEAR)
        if name not in known and (near or origin.place != PYPROJECT):
            names = ", ".join(there)
            missing = f"no pipeline here is named {name!r}; pipelines here: {names}"
            yield f"{origin} has no effect: {missing}"
