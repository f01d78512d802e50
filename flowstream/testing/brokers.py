"""The embedded broker for tests: the real protocol, in memory, on a free port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from flowstream.broker import Broker, Limits


@asynccontextmanager
async def broker(
    *,
    data: str | Path | None = None,
    users: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Broker]:
    """A broker in this event loop, for async tests; clients connect to its `url`.

    With `data` it keeps its streams in that directory, so that a test can start it again.
    """
    async with Broker(port=0, data=data, users=users, limits=limits) as running:
        yield running


@contextmanager
def broker_in_thread(
    *,
    data: str | Path | None = None,
    users: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Iterator[Broker]:
    """A broker in a thread with its own event loop, for tests and fixtures that are not async.

    As a fixture for the whole session:

        @pytest.fixture(scope="session")
        def broker_url():
            with broker_in_thread() as broker:
                yield broker.url
    """
    with start_blocking_portal() as portal:
        running = Broker(port=0, data=data, users=users, limits=limits)
        with portal.wrap_async_context_manager(running) as started:
            yield started
