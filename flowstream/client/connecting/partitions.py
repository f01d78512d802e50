"""The partitions of a super stream. They are read repeatedly: brokers do not report changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from flowstream.errors import FlowstreamError, StreamDoesNotExist
from flowstream.protocol import Code, PartitionsResponse, Route, RouteResponse
from flowstream.protocol import Partitions as PartitionsCommand

from .connection import raise_for_code
from .manager import ConnectionManager
from .recovery import repeated
from .settings import log
from .tasks import Task

OnChange = Callable[[Sequence[str], Sequence[str]], Awaitable[None]]
"""Called with the partitions that were added and those that were removed."""


async def read_partitions(manager: ConnectionManager, super_stream: str) -> list[str]:
    """The streams of a super stream, in the server's order; raises StreamDoesNotExist."""
    answer = await manager.locator.request(
        lambda c: PartitionsCommand(c, super_stream), PartitionsResponse
    )
    if answer.code == Code.STREAM_DOES_NOT_EXIST or (answer.code == Code.OK and not answer.streams):
        raise await _no_super_stream(manager, super_stream)
    raise_for_code(answer.code, f'find the partitions of "{super_stream}"', stream=super_stream)
    return list(answer.streams)


async def _no_super_stream(manager: ConnectionManager, name: str) -> StreamDoesNotExist:
    """The error for a name that no super stream has; it may be a stream's."""
    reason = "the super stream does not exist"
    try:
        await manager.locate(name)
    except StreamDoesNotExist:
        reason += "; create it first (`flowstream super-streams create NAME`)"
    except FlowstreamError:
        pass  # whether there is such a stream is not known
    else:
        reason = "it is a stream, not a super stream"
    text = f'cannot find the partitions of "{name}": {reason}'
    return StreamDoesNotExist(text, code=Code.STREAM_DOES_NOT_EXIST, stream=name)


async def read_route(manager: ConnectionManager, routing_key: str, super_stream: str) -> list[str]:
    """The partitions that are bound with the routing key; empty if there are none."""
    answer = await manager.locator.request(
        lambda c: Route(c, routing_key, super_stream), RouteResponse
    )
    raise_for_code(answer.code, f'route in "{super_stream}"', stream=super_stream)
    return list(answer.streams)


class Partitions:
    """The partitions as last read (`streams`); read again every `refresh` seconds."""

    def __init__(
        self,
        manager: ConnectionManager,
        super_stream: str,
        refresh: float,
        on_change: OnChange | None = None,
    ) -> None:
        self.super_stream = super_stream
        self.streams: list[str] = []
        self.on_change = on_change
        self._manager = manager
        self._refresh = refresh
        self._bound: dict[str, list[str]] = {}
        self._task: Task | None = None

    async def start(self) -> None:
        self._manager.check()
        self.streams = await repeated(
            partial(read_partitions, self._manager, self.super_stream), self._manager.settings
        )
        self._task = self._manager.owner.spawn(
            self._follow, name=f"partitions of {self.super_stream}"
        )

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with anyio.CancelScope(shield=True):
                await self._task.wait()

    async def bound(self, routing_key: str) -> list[str]:
        """The partitions bound with the key; cached until the next refresh."""
        if routing_key not in self._bound:
            if len(self._bound) >= 10_000:
                self._bound.clear()
            self._bound[routing_key] = await read_route(
                self._manager, routing_key, self.super_stream
            )
        return self._bound[routing_key]

    async def read_again(self) -> None:
        """Reads the partitions now; after an error the last ones are kept."""
        try:
            streams = await read_partitions(self._manager, self.super_stream)
        except FlowstreamError as error:
            log.info(
                "partitions of %r could not be read: %s", self.super_stream, error,
                extra={"stream": self.super_stream},
            )  # fmt: skip
            return
        before, self.streams = self.streams, streams
        self._bound.clear()
        added = [stream for stream in streams if stream not in before]
        removed = [stream for stream in before if stream not in streams]
        if added or removed:
            log.info(
                "partitions of %r: added %s, removed %s", self.super_stream, added, removed,
                extra={"stream": self.super_stream},
            )  # fmt: skip
            if self.on_change is not None:
                await self.on_change(added, removed)

    async def _follow(self) -> None:
        while True:
            await anyio.sleep(self._refresh)
            await self.read_again()
