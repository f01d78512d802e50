"""A stream as the source of a pipeline.

The stored offset is that of the last settled message; a run resumes behind it. StoreOffset is never
answered, so what is stored at a drain is read back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flowstream.client import Delivery, Environment, Offset, offset_spec
from flowstream.connectors.bodies import AmqpCodec
from flowstream.connectors.sharing import environment
from flowstream.errors import ConfigurationError, OffsetTruncated
from flowstream.pipeline import Feed, Producer, RunContext

log = logging.getLogger("flowstream.connectors")


class StreamProducer(Producer):
    """Reads `stream`, and stores offsets under `reference` (by default the pipeline's name).

    `offset` is where to begin while none is stored: "first", "last", "next", an offset, a
    datetime or a timedelta. `credit` chunks are asked for in advance. With `filter_values` the
    broker leaves out chunks that cannot match, and `match` decides on each raw body.
    `on_truncated` says what to do when retention has removed messages behind the stored offset:
    "error" raises OffsetTruncated, "skip" logs the count and goes on at the first retained one.
    """

    def __init__(
        self,
        stream: str,
        *,
        reference: str | None = None,
        offset: Offset = "first",
        credit: int = 10,
        filter_values: Sequence[str] = (),
        match_unfiltered: bool = False,
        match: Callable[[bytes], bool] | None = None,
        on_truncated: Literal["error", "skip"] = "error",
    ) -> None:
        if not stream:
            raise ConfigurationError("StreamProducer: the stream's name is empty")
        if on_truncated not in ("error", "skip"):
            raise ConfigurationError(
                f'StreamProducer > on_truncated: "error" or "skip", got {on_truncated!r}'
            )
        if not 1 <= credit <= 32767:
            raise ConfigurationError(f"StreamProducer > credit: 1 to 32767, got {credit}")
        offset_spec(offset)
        self.stream = stream
        self.reference = reference
        self.offset = offset
        self.credit = credit
        self.filter_values = tuple(filter_values)
        self.match_unfiltered = match_unfiltered
        self.match = match
        self.on_truncated = on_truncated
        self._environment: Environment | None = None
        self._reference = reference or ""
        self._stored: int | None = None
        self._next: int | None = None

    async def open(self, context: RunContext) -> None:
        """Raises StreamDoesNotExist, OffsetTruncated, and what `Environment` raises."""
        self._reference = self.reference or context.pipeline
        self._environment = env = await environment(context)
        first = (await env.stream_stats(self.stream)).first_offset
        self._stored = stored = await env.query_offset(self._reference, self.stream)
        self._next = None if stored is None else self._behind(stored, first)

    async def run(self, feed: Feed) -> None:
        lane = feed.open(self.stream, codec=AmqpCodec(), committed=self._stored)
        async with self._env.consumer(
            self.stream,
            offset=self.offset if self._next is None else self._next,
            credit=self.credit,
            filter_values=self.filter_values,
            match_unfiltered=self.match_unfiltered,
            match=self.match,
        ) as consumer:
            async for delivery in consumer:
                await lane.send(
                    delivery.bodies,
                    offset=delivery.offset,
                    offsets=None if isinstance(delivery.offsets, range) else delivery.offsets,
                    timestamp=delivery.timestamp,
                    tail=_tail(delivery),
                )
                self._next = delivery.offsets[-1] + 1

    async def commit(self, stream: str, offset: int) -> None:
        await self._env.store_offset(self._reference, stream, offset)

    async def verify(self, stream: str, offset: int) -> None:
        await self._env.store_offset_verified(self._reference, stream, offset)

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        """With a filter the end of the stream may never be delivered; then being quiet decides."""
        if self.match is not None:
            return True
        last = await self._env.last_offset(self.stream)
        received = positions.get(self.stream)
        reached = max(
            -1 if received is None else received, -1 if self._next is None else self._next - 1
        )
        if self._next is None and received is None and self.offset != "first":
            return True
        return last is None or reached >= last

    def describe(self) -> Mapping[str, Any]:
        return {
            "producer": "StreamProducer",
            "stream": self.stream,
            "reference": self._reference or "the pipeline's name",
            "offset": str(self.offset),
            "credit": self.credit,
        }

    @property
    def _env(self) -> Environment:
        if self._environment is None:
            raise ConfigurationError(f"{self!r} is not open: it runs inside a pipeline")
        return self._environment

    def _behind(self, stored: int, first: int | None) -> int:
        """Where to go on; what retention took away in between is an error, or counted."""
        if first is None or stored + 1 >= first:
            return stored + 1
        text = (
            f'"{self.stream}": the stored offset of "{self._reference}" is {stored}, but the first '
            f"retained one is {first}: {first - stored - 1} messages are lost"
        )
        if self.on_truncated == "skip":
            log.warning("%s; going on at %d", text, first)
            return first
        raise OffsetTruncated(
            f'{text}. Accept that with on_truncated="skip", or `flowstream offsets set '
            f"{self._reference} {self.stream} {first - 1}`",
            stream=self.stream,
            stored=stored,
            first=first,
        )


def _tail(delivery: Delivery) -> int:
    return max(delivery.committed_chunk_id or 0, delivery.offsets[-1])
