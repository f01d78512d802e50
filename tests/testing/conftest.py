"""Async tests of this room run on asyncio and on trio, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream.testing import virtual_time


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_time(request.param)
