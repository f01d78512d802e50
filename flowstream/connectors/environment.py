"""The environment of a run: the one it was given, or its own, shared by all of its connectors."""

from __future__ import annotations

import os
from typing import cast

from flowstream.client import DEFAULT_URL, Environment, StreamUrl
from flowstream.pipeline import RunContext

VARIABLE = "FLOWSTREAM_URL"


async def environment_of(context: RunContext) -> Environment:
    """The environment to use in this run.

    It is `environment=` of the run, or one for `url=`, FLOWSTREAM_URL or localhost, in this order.
    Raises ConnectionFailed, AuthenticationFailed or VirtualHostAccessFailed.
    """
    if context.environment is not None:
        return cast(Environment, context.environment)

    def make() -> Environment:
        url = context.url
        if url is None:
            url = os.environ.get(VARIABLE, DEFAULT_URL)
            StreamUrl.parse(url, VARIABLE)
        return Environment(url, telemetry=context.telemetry, name=f"flowstream {context.pipeline}")

    return cast(Environment, await context.shared("environment", make))
