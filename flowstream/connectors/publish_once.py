"""Publishes what is made from messages of streams exactly once, by the broker's deduplication.

A broker remembers the highest publishing id of a reference, and drops an id that is not above it.
Here each pair of a source stream (or partition) and a target stream has a reference, and ids are
made of source offsets (`publishing_ids`). So what a crash, or an owner that should be dead, repeats
is dropped. That holds only while ids ascend: what comes here is in the order of the source, and
after a failure everything that is unconfirmed is sent again, in order, before anything new.

What the target has already when it is opened was published by an earlier run. It is not sent again.

A broker can forget a sequence (it keeps those of 255 references a stream), and either stream can be
deleted and created again. Then ids alone would repeat messages, or lose them. So a marker is stored
in the source stream, as an offset: -1 before the first message is published, and then a source
offset that is known to be published. A target that is behind its marker has lost its sequence; a
source without a marker, for which the target has a sequence, is another stream with the same name.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio

from flowstream.backoff import Backoff
from flowstream.connectors.environment import StreamEnvironment, StreamWriter
from flowstream.errors import (
    ConnectionFailed,
    FlowstreamError,
    MessageTooLarge,
    PublishFailed,
    RequestTimeout,
    SequenceLost,
    SinkFailed,
    StreamNotAvailable,
    StreamReplaced,
)

T = TypeVar("T")
_log = logging.getLogger("flowstream.connectors")

OUTPUT_BITS = 16
MOST_OUTPUTS = 1 << OUTPUT_BITS
"""The most messages that are made from one."""
MOST_OFFSET = (1 << 47) - 2
"""The highest source offset: ids stay within 63 bits, as every client and broker can keep them."""
MAX_REFERENCE = 255 - len("#kept")
"""Bytes of a reference: its marker is an offset that is stored a second time (`keep=True`)."""
ATTEMPTS = 10
BACKOFF = Backoff(0.2, maximum=5.0)
AWAY = (ConnectionFailed, RequestTimeout, StreamNotAvailable)
"""Errors that end when the broker is back."""
NOTHING = -1
"""The marker while nothing is known to be published."""
EVERY = 30.0
"""Seconds between two times that a marker is stored."""
MANY = 20_000
"""Repeated offsets that a crash does not explain: the default window, and as many to a commit."""


def publishing_ids(offset: int, count: int) -> range:
    """The ids of what is made from the message at `offset`; all are above those before it.

    0 is no id: brokers answer it for a reference that they do not know.
    """
    first = (offset + 1) << OUTPUT_BITS
    return range(first, first + count)


def offset_of(publishing_id: int) -> int:
    """The source offset that an id was made from; -1 for the id 0."""
    return (publishing_id >> OUTPUT_BITS) - 1


def bounded(reference: str) -> str:
    """The reference, or a shorter one that ends in its hash."""
    encoded = reference.encode()
    if len(encoded) <= MAX_REFERENCE:
        return reference
    end = "~" + hashlib.sha256(encoded).hexdigest()[:32]
    return encoded[: MAX_REFERENCE - len(end)].decode(errors="ignore") + end


def sequence_reference(reference: str, source: str) -> str:
    """The reference that a target keeps the publishing ids of a source stream under."""
    return bounded(f"{reference}<{source}")


def published_record(stream: str, reference: str) -> str:
    """Where an end of a pipeline records what it has published, in words."""
    return f"stream {stream!r}, reference {reference!r}"


class OncePublisher:
    """Publishes for one sink (or failure policy) of a run. `options` are those of its publishers.

    One task at a time may call `send`. Any number may wait in `confirmed`.
    """

    def __init__(
        self, environment: StreamEnvironment, pipeline: str, reference: str, **options: Any
    ) -> None:
        self.environment = environment
        self.pipeline = pipeline
        self.reference = reference
        self.options: Final = options
        self.repeated: int = 0
        """Messages that were not sent, because their target has them from an earlier run."""
        self.decided: Final[dict[str, int]] = {}
        """Source offsets up to which everything counts as published, in every target."""
        self._channels: dict[tuple[str, str], Channel] = {}
        self._failed: BaseException | None = None

    async def channel(self, source: str, target: str) -> Channel:
        """The channel from a source stream to a target stream, which is opened at its first use."""
        self.check()
        channel = self._channels.get((source, target))
        if channel is None:
            channel = self._channels[source, target] = Channel(self, source, target)
            try:
                await channel.open()
            except BaseException as error:  # what it has opened is closed with the others
                self.failed(error)
                raise
        return channel

    def decide(self, source: str, offset: int) -> None:
        """From now on, all messages up to `offset` count as published in every target."""
        self.decided[source] = max(offset, self.decided.get(source, NOTHING))
        for channel in self._channels.values():
            channel.decide()

    async def stored(self, reference: str, source: str) -> int | None:
        """The number that is stored in a source stream."""
        return await when_connected(lambda: self.environment.query_offset(reference, source))

    async def store(self, reference: str, source: str, number: int) -> None:
        """Store a number in a source stream, for certain."""
        await when_connected(
            lambda: self.environment.store_offset_verified(reference, source, number)
        )

    def check(self) -> None:
        """Raise if this publisher has failed: nothing may be published after a failure."""
        if self._failed is not None:
            raise SinkFailed(f"nothing more is published: {self._failed}") from self._failed

    def failed(self, error: BaseException) -> None:
        """Stop publishing. The next run starts with the messages that failed."""
        self._failed = self._failed or error

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()


class Channel:
    """What the messages of one source stream become in one target stream."""

    def __init__(self, owner: OncePublisher, source: str, target: str) -> None:
        self.source = source
        self.target = target
        self.reference: str = sequence_reference(owner.reference, source)
        self._marker: Final = _Marker(
            owner.environment, bounded(f"{owner.reference}<{source}>{target}"), source
        )
        self._owner = owner
        self._manager: Any = None
        self._publisher: StreamWriter | None = None
        self._sequence = self._known = 0
        self._last = 0
        self._unconfirmed: deque[tuple[Sequence[int], list[bytes]]] = deque()
        self._sent = self._done = 0
        self._refused: list[tuple[Sequence[int], PublishFailed]] = []
        self._tries = 0
        self._lock = anyio.Lock()
        self._reported = False

    @property
    def published(self) -> int:
        """The highest source offset of which the target has a message; -1: none."""
        return offset_of(max(self._sequence, self._last))

    def decide(self) -> None:
        """Do not publish what the owner has decided."""
        decided = self._owner.decided.get(self.source, NOTHING)
        self._known = max(self._known, publishing_ids(decided + 1, 1)[0] - 1)

    @property
    def publisher(self) -> StreamWriter:
        assert self._publisher is not None
        return self._publisher

    # -- publishing

    async def send(self, ids: Sequence[int], bodies: list[bytes]) -> None:
        """Send bodies with ascending ids, without those that the target has already."""
        self._owner.check()
        try:
            async with self._lock:
                await self._send_new(ids, bodies)
        except BaseException as error:
            self._owner.failed(error)
            raise

    async def confirmed(self) -> None:
        """Wait until everything that was sent so far is confirmed."""
        through = self._sent
        try:
            while self._done < through:
                async with self._lock:
                    await self._send_refused()
                    publisher, sent = self.publisher, self._sent
                await publisher.flush()
                if not self._refused and publisher is self._publisher:
                    self._confirm(sent)
            await self._marker.store()
        except BaseException as error:
            self._owner.failed(error)
            raise

    async def _send_new(self, ids: Sequence[int], bodies: list[bytes]) -> None:
        if ids[0] <= self._last:
            await self._begin_again()
        await self._send_refused()
        self._last = ids[-1]
        if repeated := bisect_right(ids, self._known):
            self._report(ids[:repeated])
            ids, bodies = ids[repeated:], bodies[repeated:]
        if bodies:
            self._unconfirmed.append((ids, bodies))
            self._sent += 1
            await self._send(ids, bodies)

    async def _send(self, ids: Sequence[int], bodies: list[bytes]) -> None:
        try:
            await self.publisher.send_many(bodies, publishing_ids=ids)
        except MessageTooLarge:
            raise
        except PublishFailed as error:
            self._refused.append((ids, error))

    def _confirm(self, sent: int) -> None:
        self._tries = 0
        while self._done < sent:
            ids, _ = self._unconfirmed.popleft()
            self._done += 1
            self._marker.reached(offset_of(ids[-1]))

    async def _send_refused(self) -> None:
        """After a refusal: send what the target does not have again, before anything new."""
        while self._refused:
            refused = list(self._refused)
            error = refused[0][1]
            self._tries += 1
            if self._tries >= ATTEMPTS:
                raise SinkFailed(f"{self!r} failed {self._tries} times: {error}") from error
            delay = BACKOFF.delay(self._tries, random.random())
            _log.warning(
                "%s: publishing to %s failed and is tried again in %.1f s: %s",
                self._owner.pipeline, self.target, delay, error,
                extra={"pipeline": self._owner.pipeline, "stream": self.target},
            )  # fmt: skip
            await anyio.sleep(delay)
            await self._open_again()
            self._check_overtaken(refused)
            for ids, bodies in list(self._unconfirmed):
                if missing := len(ids) - bisect_right(ids, self._known):
                    await self._send(ids[-missing:], bodies[-missing:])

    def _check_overtaken(self, refused: Sequence[tuple[Sequence[int], PublishFailed]]) -> None:
        """Raise if a message was refused and a later one accepted: it cannot be published then."""
        lost = [i for ids, error in refused if error.code for i in ids if i <= self._known]
        if lost:
            raise SinkFailed(
                f"{self!r}: the broker refused {len(lost)} messages, the first of them from "
                f"offset {offset_of(min(lost))}, and accepted later ones: they are not in "
                f'"{self.target}", and the next run cannot add them; publish them by hand'
            )

    async def _begin_again(self) -> None:
        """The source has gone back: another partition of this run begins before the last one."""
        while self._done < self._sent:
            await self._send_refused()
            sent = self._sent
            await self.publisher.flush()
            if not self._refused:
                self._confirm(sent)
        await self._open_again()

    def _report(self, ids: Sequence[int]) -> None:
        self._owner.repeated += len(ids)
        if not self._reported:
            self._reported = True
            first, last = offset_of(ids[0]), offset_of(self._known)
            _log.log(
                logging.WARNING if last - first > MANY else logging.INFO,
                "%s: what %s@%d and others up to %d become is in %s already, and is not published "
                "again: an earlier run published it under the reference %r",
                self._owner.pipeline, self.source, first, last, self.target, self.reference,
                extra={"pipeline": self._owner.pipeline, "stream": self.source},
            )  # fmt: skip

    # -- life

    async def open(self) -> None:
        """Open the publisher, and find what the target has. Raises if the sequence was lost."""
        self._refused.clear()
        marker = await self._marker.read()  # before the sequence, which another owner may advance
        self._publisher = await when_connected(self._open_publisher)
        self._sequence = self._known = self.publisher.last_publishing_id or 0
        self._last = 0
        published = offset_of(self._known)
        if marker is None and self._known:
            marker = await self._marker.read()  # another owner may have begun meanwhile
        if marker is None and self._known:
            raise StreamReplaced(
                f'"{self.target}" has messages from "{self.source}" up to offset {published}, but '
                f'"{self.source}" does not know that: it was deleted and created again, and its '
                f"new messages would be taken for published ones. {self._way_out()}"
            )
        if marker is not None:
            marker = max(marker, self._marker.claim)  # the stored one may be older
        if marker is not None and marker > published:
            raise SequenceLost(
                f'"{self.target}" does not know that messages from "{self.source}" up to offset '
                f"{marker} were published to it: it was deleted and created again, or the broker "
                f"has forgotten the reference {self.reference!r} (it keeps 255 for each stream). "
                f"{self._way_out()}"
            )
        if marker is None:
            await self._marker.create()
        self.decide()

    async def _open_publisher(self) -> StreamWriter:
        owner = self._owner
        manager = owner.environment.publisher(
            self.target, reference=self.reference, require_sequence=True, confirm_timeout=None,
            on_error=lambda ids, error: self._refused.append((ids, error)), **owner.options,
        )  # fmt: skip
        publisher = await manager.__aenter__()
        self._manager = manager
        return publisher

    def _way_out(self) -> str:
        return (
            "If that is intended, give exactly_once another reference=, such as "
            f'"{self._owner.reference}-2": under it, everything that comes from now on is published'
        )

    async def _open_again(self) -> None:
        await self._close_publisher()
        await self.open()

    async def close(self) -> None:
        """Close the publisher, and store the marker. What is unconfirmed stays so."""
        await self._close_publisher()
        await self._marker.store(at_once=True)

    async def _close_publisher(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:  # with an error, so that it does not wait for confirms endlessly
            await manager.__aexit__(SinkFailed, SinkFailed("closed"), None)

    def __repr__(self) -> str:
        return f'publishing from "{self.source}" to "{self.target}" exactly once'


class _Marker:
    """The marker of one channel, a stored offset in the source stream."""

    def __init__(self, environment: StreamEnvironment, reference: str, source: str) -> None:
        self._environment = environment
        self._reference = reference
        self._source = source
        self._reached = self._stored = NOTHING
        self._due = 0.0

    @property
    def claim(self) -> int:
        """The source offset that is known to be published in this run."""
        return self._reached

    async def read(self) -> int | None:
        return await when_connected(
            lambda: self._environment.query_offset(self._reference, self._source)
        )

    async def create(self) -> None:
        """Store that nothing is published yet, for certain: it is looked for at the next start."""
        await when_connected(
            lambda: self._environment.store_offset_verified(
                self._reference, self._source, NOTHING, keep=True
            )
        )

    def reached(self, offset: int) -> None:
        self._reached = max(self._reached, offset)

    async def store(self, *, at_once: bool = False) -> None:
        """Store how far it is certain that messages are published, once in a while."""
        if self._reached > self._stored and (at_once or anyio.current_time() >= self._due):
            self._stored = self._reached
            self._due = anyio.current_time() + EVERY
            with suppress(FlowstreamError):  # an older marker is right, too
                await self._environment.store_offset(
                    self._reference, self._source, self._stored, keep=True
                )


async def when_connected(request: Callable[[], Awaitable[T]]) -> T:
    """The answer to a request, which is repeated while the broker is away, as publishers wait."""
    for attempt in itertools.count(1):
        try:
            return await request()
        except AWAY:
            await anyio.sleep(BACKOFF.delay(attempt, random.random()))
    raise AssertionError
