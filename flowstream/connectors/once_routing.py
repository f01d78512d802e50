"""Notices that messages are routed to a super stream in another way than before.

Publishing ids are compared within one partition of the target. A message that was published, and
comes again after a crash, must come to the same partition: in another one it would be there twice,
or, with an id below the last one there, be taken for published and be lost. So the sink stores in
each source stream how it routes (`?routing`, a hash of the partitions in their order, the mode and
the key's field), and accepts another routing only behind everything that is published. From then
on, all messages before that offset count as published in every partition (`?decided`).

The record cannot show that a function used as `key` returns something else, or that a routing key
is bound to another partition.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from flowstream.connectors.environment import SuperStreamWriter
from flowstream.connectors.outputs import Key
from flowstream.connectors.publish_once import OncePublisher, bounded
from flowstream.errors import RoutingChanged

_log = logging.getLogger("flowstream.connectors")

BASE = 1 << 61
"""Stored numbers are above this: a broker forgets an offset that retention has passed."""
HASH_BYTES = 6


class OnceRouting:
    """The routing of one sink of a run."""

    def __init__(self, publisher: OncePublisher, router: SuperStreamWriter, key: Key) -> None:
        self._publisher = publisher
        self._router = router
        self._key = key
        self._used: Final[dict[str, int]] = {}

    async def check(self, begins: Mapping[str, int]) -> Sequence[str]:
        """Accept or refuse the current partitions, and return them.

        `begins` are the first offsets that are routed now, by source stream. Raises RoutingChanged
        if a message may have been published by another routing.
        """
        partitions = list(self._router.partitions)
        number = routing_number(self._key, self._router.routing, partitions)
        for source, offset in begins.items():
            if self._used.get(source) != number:
                try:
                    await self._begin(source, offset, number)
                except BaseException as error:
                    self._publisher.failed(error)
                    raise
                self._used[source] = number
        return partitions

    async def _begin(self, source: str, offset: int, number: int) -> None:
        publisher = self._publisher
        name = f"{publisher.reference}<{source}>{self._router.super_stream}"
        routing, decided = bounded(f"{name}?routing"), bounded(f"{name}?decided")
        stored = await publisher.stored(routing, source)
        if stored == number:
            before = await publisher.stored(decided, source)
            if before is not None:
                publisher.decide(source, before - BASE - 1)
            return
        if stored is not None:
            published = await self._published(source)
            if published >= offset:
                raise self._changed(source, offset, published)
            # First what is decided, which is true with either routing: a crash may come between.
            await publisher.store(decided, source, BASE + offset)
            publisher.decide(source, offset - 1)
            _log.warning(
                "%s: messages from %s at %d are routed to %s in another way than those before: its "
                "partitions or the key have changed",
                publisher.pipeline, source, offset, self._router.super_stream,
                extra={"pipeline": publisher.pipeline, "stream": source},
            )  # fmt: skip
        await publisher.store(routing, source, number)

    async def _published(self, source: str) -> int:
        """The highest offset of a message from the source that any partition has."""
        highest = -1
        for partition in self._router.partitions:
            channel = await self._publisher.channel(source, partition)
            await channel.confirmed()
            highest = max(highest, channel.published)
        return highest

    def _changed(self, source: str, offset: int, published: int) -> RoutingChanged:
        target = self._router.super_stream
        return RoutingChanged(
            f'the partitions of "{target}", or the key, have changed while messages from '
            f'"{source}" were in flight: those from offset {offset} to {published} may be '
            "published already, in other partitions, and could be there twice or be lost. Put "
            "partitions and key back, and let the pipeline drain before you change them; or give "
            f"exactly_once another reference=, such as "
            f'"{self._publisher.reference}-2": under it, everything that comes from now on is '
            "published"
        )


def routing_number(key: Key, mode: str, partitions: Sequence[str]) -> int:
    """A number that stands for the routing by these partitions, in their order."""
    field = key if isinstance(key, str) else ""
    named = "\0".join([mode, field, *partitions]).encode(errors="surrogatepass")
    return BASE + int.from_bytes(hashlib.sha256(named).digest()[:HASH_BYTES])
