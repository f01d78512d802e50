"""A broker in memory: streams, stored offsets, publisher sequences and faults.

`MemoryEnvironment` is the client's interface to it. Consumers and publishers share one instance, so
a fault that one consumer meets concerns all of them, as on a broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anyio
import anyio.lowlevel

from flowstream.client import hash_route
from flowstream.errors import FlowstreamError, PublishFailed
from flowstream.pipeline import Signal
from flowstream.schema import whole
from flowstream.testing.markers import Crash, Disconnect, Marker, Pause
from flowstream.testing.memory_stream import MemoryStream, milliseconds


class Crashed(FlowstreamError):
    """A consumer reached a `Crash()` marker outside of a `PipelineTester`, which ends its run."""


@dataclass(frozen=True, slots=True)
class MemoryDelivery:
    """Like `flowstream.client.Delivery`: messages of one chunk, trimmed and filtered."""

    stream: str
    offsets: Sequence[int]
    bodies: list[bytes]
    timestamp: int
    committed_chunk_id: int | None
    lost: int = 0

    @property
    def offset(self) -> int:
        return self.offsets[0]


class MemoryBroker:
    """Streams by name. `offsets` are the stored ones, by (reference, stream).

    `deliveries` are all that consumers have been given. `changed` is notified when a stream grows
    and when a fault is over.
    """

    def __init__(
        self, streams: Mapping[str, Iterable[Any]] | None = None, *, chunk_size: int = 100
    ) -> None:
        whole(1, unit="messages").check("MemoryEnvironment > chunk_size", chunk_size)
        self.chunk_size = chunk_size
        self.offsets: dict[tuple[str, str], int] = {}
        self.deliveries: list[MemoryDelivery] = []
        self.disconnects: int = 0
        self.changed: Final = Signal()
        self.on_crash: list[Callable[[], None]] = []
        self._streams: dict[str, MemoryStream] = {}
        self._super_streams: dict[str, list[str]] = {}
        self._sequences: dict[tuple[str, str], int] = {}
        self._refusals: dict[str, int] = {}
        self._connected = True
        self._faults = 0
        for name, items in (streams or {}).items():
            self.append(name, items)

    # -- streams

    def stream(self, name: str) -> MemoryStream:
        """The stream of that name; it is created if it does not exist."""
        if name not in self._streams:
            self._streams[name] = MemoryStream(chunk_size=self.chunk_size)
        return self._streams[name]

    def super_stream(self, name: str, partitions: int | Sequence[str] = 3) -> list[str]:
        """The names of the partitions; the super stream is created if it does not exist."""
        if name not in self._super_streams:
            keys = range(partitions) if isinstance(partitions, int) else partitions
            self._super_streams[name] = [f"{name}-{key}" for key in keys]
        return self._super_streams[name]

    def append(
        self, name: str, items: Iterable[Any], *, timestamp: datetime | int | None = None
    ) -> range:
        """Add messages and markers to a stream; returns the offsets of the messages.

        Bytes, strings and AMQP messages are bodies; everything else is encoded as JSON.
        `timestamp` is the time of the chunks, now unless given; a number is in milliseconds.
        """
        now = int(time.time() * 1000) if timestamp is None else milliseconds(timestamp)
        offsets = self.stream(name).append(items, timestamp=now)
        self.changed.notify()
        return offsets

    def route(self, super_stream: str, key: str) -> str:
        """The partition of a key, by the hash that all stream clients use."""
        return hash_route(key, self.super_stream(super_stream))

    # -- publishers

    def last_publishing_id(self, reference: str, stream: str) -> int:
        """The highest publishing id of the reference on the stream; 0 if there is none."""
        return self._sequences.get((reference, stream), 0)

    def without_duplicates(
        self, reference: str, stream: str, bodies: Sequence[Any], ids: Sequence[int]
    ) -> list[Any]:
        """The bodies whose publishing id is above all earlier ones of the reference."""
        key = reference, stream
        fresh = []
        for body, publishing_id in zip(bodies, ids, strict=True):
            if publishing_id > self._sequences.get(key, -1):
                self._sequences[key] = publishing_id
                fresh.append(body)
        return fresh

    def refuse(self, stream: str, times: int = 1) -> None:
        """The next `times` attempts to publish to the stream fail with PublishFailed."""
        self._refusals[stream] = times

    def check_refusal(self, stream: str) -> None:
        """Raise PublishFailed if `refuse` asked for it."""
        if self._refusals.get(stream, 0) > 0:
            self._refusals[stream] -= 1
            raise PublishFailed(
                f'"{stream}" refused a message, because the test called `refuse`', stream=stream
            )

    # -- markers

    async def until_connected(self) -> None:
        """Wait while the connection is broken."""
        await anyio.lowlevel.checkpoint()
        while not self._connected:
            await self.changed.wait()

    async def next_of(self, take: Callable[[], MemoryDelivery | Marker | None]) -> MemoryDelivery:
        """The next delivery that `take` returns; the markers that it returns take effect."""
        while True:
            found = take()
            if isinstance(found, Marker):
                await self._act(found)
            elif found is not None:
                await self.until_connected()
                return found
            else:
                await self.changed.wait()

    async def _act(self, marker: Marker) -> None:
        self._faults += 1
        try:
            if isinstance(marker, Pause):
                await anyio.sleep(marker.seconds)
            elif isinstance(marker, Disconnect):
                await self._disconnect(marker.seconds)
            elif isinstance(marker, Crash):
                await self._crash()
        finally:
            self._faults -= 1
        self.changed.notify()

    async def _disconnect(self, seconds: float) -> None:
        self.disconnects += 1
        self._connected = False
        try:
            await anyio.sleep(seconds)
        finally:
            self._connected = True

    async def _crash(self) -> None:
        if not self.on_crash:
            raise Crashed(
                "a consumer reached a Crash() marker outside of a PipelineTester; "
                "run the pipeline with PipelineTester, or remove the marker"
            )
        for callback in self.on_crash:
            callback()
        await anyio.sleep_forever()
