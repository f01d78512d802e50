"""Options of a pipeline that the configuration sets, put over those of its declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstream.cli.settings import Origin, settings
from flowstream.errors import ConfigurationError
from flowstream.pipeline import RateLimit

if TYPE_CHECKING:
    from flowstream.pipeline import Pipeline


def override(pipeline: Pipeline) -> dict[str, Origin]:
    """Change the pipeline's options; returns what was changed, and where it is said.

    Raises ConfigurationError, with that place, for options that do not fit the declaration.
    """
    found = settings().overrides(pipeline.name)
    values: dict[str, Any] = {name: value for name, (value, _) in found.items()}
    messages, size = values.pop("rate_limit", None), values.pop("rate_limit_bytes", None)
    if messages is not None or size is not None:
        values["rate_limit"] = RateLimit(messages, bytes=size)
    try:
        pipeline.configure(**values)
    except ConfigurationError as error:
        places = ", ".join(str(origin) for _, origin in found.values())
        raise ConfigurationError(f"{error} (configured by {places})") from None
    return {name: origin for name, (_, origin) in found.items()}
