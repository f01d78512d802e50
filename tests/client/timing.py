"""Virtual time: an hour's timeout passes in a millisecond, when nothing else can happen."""

from __future__ import annotations

from typing import Any

import trio.testing


def virtual_time() -> tuple[str, dict[str, Any]]:
    """What an `anyio_backend` fixture returns for it."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
