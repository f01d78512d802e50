"""Tests of this room run on asyncio and on trio, both in virtual time."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from flowstream.testing import virtual_time
from tests.support.threads import WatchedThreads


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> WatchedThreads:
    """For tests with handlers in worker threads: virtual time waits for what they do."""
    return WatchedThreads(monkeypatch)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if "threads" in request.fixturenames:
        watched: WatchedThreads = request.getfixturevalue("threads")
        return watched.virtual_time(request.param)
    return virtual_time(request.param)


@pytest.fixture
def short_collections() -> None:
    """Where a thousand tests have run, a full collection blocks the loop for a second, too."""
    gc.collect()
    gc.freeze()
