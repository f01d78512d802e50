"""The environment of a run: the one it was given, or its own, shared by all of its connectors."""

from __future__ import annotations

import os
from typing import cast

from flowstream.client import DEFAULT_URL, Environment
from flowstream.pipeline import RunContext


async def environment_of(context: RunContext) -> Environment:
    """The environment to use in this run.

    It is `environment=` of the run, or one for `url=`, FLOWSTREAM_URL or localhost, in this order.
    Raises ConnectionFailed, AuthenticationFailed or VirtualHostAccessFailed.
    """
    if context.environment is not None:
        return cast(Environment, context.environment)

    def make() -> Environment:
        url = context.url or os.environ.get("FLOWSTREAM_URL") or DEFAULT_URL
        return Environment(url, telemetry=context.telemetry, name=f"flowstream {context.pipeline}")

    return cast(Environment, await context.shared("environment", make))
