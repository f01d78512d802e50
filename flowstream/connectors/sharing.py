"""The environment of a run: the one it was given, or one opened for it from its URL."""

from __future__ import annotations

from flowstream.client import DEFAULT_URL, Environment
from flowstream.pipeline import RunContext


async def environment(context: RunContext) -> Environment:
    """The run's environment; all connectors of a run share it. Raises as `Environment` does."""
    given = context.environment
    if given is not None:
        assert isinstance(given, Environment)
        return given
    made: Environment = await context.shared(
        "environment",
        lambda: Environment(
            context.url or DEFAULT_URL,
            telemetry=context.telemetry,
            name=f"flowstream-{context.pipeline}",
        ),
    )
    return made
