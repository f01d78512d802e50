"""What a run tells its producer and its failure policy, and what they share in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import anyio

from flowstream.telemetry import Telemetry


class RunContext:
    """One run of one pipeline.

    `url` and `environment` are what the run was given (each may be None); `counts` are the
    messages settled so far by outcome.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        url: Any = None,
        environment: Any = None,
        telemetry: Telemetry | None = None,
        counts: dict[str, int] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.url = url
        self.environment = environment
        self.telemetry = telemetry or Telemetry()
        self.counts: dict[str, int] = counts if counts is not None else {}
        self._stack = AsyncExitStack()
        self._shared: dict[str, Any] = {}
        self._lock = anyio.Lock()

    async def shared(self, key: str, make: Callable[[], AbstractAsyncContextManager[Any]]) -> Any:
        """What `make` opens, once for the run; it is closed after everything that uses it."""
        async with self._lock:
            if key not in self._shared:
                self._shared[key] = await self._stack.enter_async_context(make())
            return self._shared[key]

    async def __aenter__(self) -> RunContext:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._stack.__aexit__(*exc)
