"""The environment of a run: the one it was given, or its own, shared by all of its connectors."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from flowstream.client import DEFAULT_URL, Environment, StreamUrl
from flowstream.errors import ConfigurationError
from flowstream.pipeline import RunContext
from flowstream.texts import type_name

VARIABLE = "FLOWSTREAM_URL"


async def environment_of(context: RunContext) -> Environment:
    """The environment to use in this run, which ends with an error when it is closed.

    It is `environment=` of the run, or one for `url=`, FLOWSTREAM_URL or localhost, in this order.
    Raises ConnectionFailed, AuthenticationFailed or VirtualHostAccessFailed, and EnvironmentClosed
    or ConfigurationError where the one that was given cannot be used.
    """
    return cast(Environment, await context.shared("environment", lambda: _used(context)))


@asynccontextmanager
async def _used(context: RunContext) -> AsyncIterator[Environment]:
    given = context.environment
    if given is None:
        url = context.url
        if url is None:
            url = os.environ.get(VARIABLE, DEFAULT_URL)
            StreamUrl.parse(url, VARIABLE)
        name = f"flowstream {context.pipeline}"
        async with Environment(url, telemetry=context.telemetry, name=name) as environment:
            yield environment
    elif isinstance(given, Environment):
        with given.used_by(f"pipeline {context.pipeline!r}", context.fail):
            yield given
    elif not hasattr(type(given), "query_offset"):
        raise ConfigurationError(
            f"environment: expected an Environment that is open, got an object of the type "
            f"{type_name(given)} (an address goes into url=)"
        )
    else:
        yield cast(Environment, given)  # one for tests, such as MemoryEnvironment
