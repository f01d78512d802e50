"""Tests of this room run on asyncio and on trio, both in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.pipeline.clocks import MOMENT, VirtualLoop


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": VirtualLoop}
    return "trio", {"clock": MockClock(autojump_threshold=MOMENT)}
