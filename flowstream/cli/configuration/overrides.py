"""Options of a pipeline that the configuration sets, put over those of its declaration."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flowstream.cli.configuration.settings import PIPELINES, PYPROJECT, Origin, names_of, settings
from flowstream.errors import ConfigurationError
from flowstream.pipeline import RateLimit

if TYPE_CHECKING:
    from flowstream.pipeline import Pipeline

log = logging.getLogger("flowstream.run")

NEAR = 0.75
"""How alike two names are where one of them may be a mistake."""


def override(pipeline: Pipeline) -> dict[str, Origin]:
    """Change the pipeline's options; returns what was changed, and where it is said.

    Raises ConfigurationError, with that place, for options that do not fit the declaration.
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
    """Say which options are not those of the declaration, and where they come from."""
    if changed:
        options = ", ".join(f"{name} by {origin}" for name, origin in changed.items())
        log.info(
            "pipeline %r: configured beside its declaration: %s", pipeline, options,
            extra={"pipeline": pipeline},
        )  # fmt: skip


def unused(pipelines: Iterable[str]) -> Iterator[str]:
    """What options of pipelines change nothing here, in words.

    Variables are for this run. Tables of a file may be for other pipelines: they are reported where
    a name is nearly that of a pipeline.
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
            yield f"{origin} changes nothing: no pipeline here is named {name!r}, only {names}"
