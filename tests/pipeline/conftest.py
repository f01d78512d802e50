"""Tests of this room run on asyncio and on trio, both in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream.testing import virtual_time


@pytest.fixture
def threads() -> None:
    """For tests with handlers in worker threads: virtual time gives them a moment to work."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    moment = 0.01 if "threads" in request.fixturenames else 0
    return virtual_time(request.param, moment=moment)
