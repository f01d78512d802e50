"""The environment of a run, which all of its connectors share: the given one, or a new one.

`StreamEnvironment` is the protocol that the connectors need. `flowstream.client.Environment` and
`flowstream.testing.MemoryEnvironment` implement it; mypy and pyright check both (tests/typing).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Literal, Protocol, TypeAlias, cast

from flowstream.client import (
    DEFAULT_URL,
    Environment,
    Offset,
    OffsetSpec,
    Routing,
    State,
    StreamBacklog,
    StreamStatistics,
    StreamUrl,
    through_losses,
)
from flowstream.errors import ConfigurationError, PublishFailed, StreamDoesNotExist
from flowstream.pipeline import RunContext
from flowstream.texts import listed, type_name

VARIABLE = "FLOWSTREAM_URL"


OnTruncated: TypeAlias = Literal["error", "skip"]


class StreamDelivery(Protocol):
    """Messages of a stream that arrived together; see `flowstream.client.Delivery`."""

    @property
    def stream(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def offsets(self) -> Sequence[int]: ...
    @property
    def bodies(self) -> list[bytes]: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def lost(self) -> int: ...


class StreamReader(Protocol):
    """An open consumer of a stream; see `flowstream.client.Consumer`."""

    @property
    def position(self) -> int | None: ...
    @property
    def losses(self) -> int | None: ...
    def __aiter__(self) -> AsyncIterator[StreamDelivery]: ...


class SuperStreamReader(Protocol):
    """An open consumer of a super stream; see `flowstream.client.SuperStreamConsumer`."""

    @property
    def partitions(self) -> list[str]: ...
    @property
    def active(self) -> list[str]: ...
    @property
    def moving(self) -> list[str]: ...
    @property
    def positions(self) -> dict[str, int | None]: ...
    @property
    def losses(self) -> dict[str, int | None]: ...
    async def subscribe_again(self) -> None: ...
    def __aiter__(self) -> AsyncIterator[StreamDelivery]: ...


class StreamLag(Protocol):
    """Measures the lag of a stream; see `flowstream.client.LagProbe`."""

    async def look(self, behind: int, read: Callable[[], int] | None = None) -> StreamBacklog: ...


class StreamWriter(Protocol):
    """An open publisher of a stream; see `flowstream.client.Publisher`."""

    @property
    def state(self) -> State: ...
    @property
    def max_body(self) -> int | None: ...
    @property
    def last_publishing_id(self) -> int | None: ...
    def check_fits(self, bodies: Sequence[bytes]) -> None: ...
    async def publish_many(self, bodies: Sequence[bytes]) -> None: ...
    async def send_many(
        self, bodies: Sequence[bytes], *, publishing_ids: Sequence[int] | None = None
    ) -> None: ...
    async def flush(self) -> None: ...


class SuperStreamWriter(Protocol):
    """An open publisher of a super stream; see `flowstream.client.SuperStreamPublisher`."""

    @property
    def super_stream(self) -> str: ...
    @property
    def routing(self) -> Routing: ...
    @property
    def partitions(self) -> list[str]: ...
    async def partitions_of(self, key: str) -> Sequence[str]: ...
    async def publish_many(self, bodies: Sequence[bytes], *, keys: Sequence[str]) -> None: ...


class StreamEnvironment(Protocol):
    """What the connectors need of an environment; see `flowstream.client.Environment`."""

    # --- streams

    async def stream_exists(self, name: str) -> bool: ...
    async def create_stream(self, name: str, *, exist_ok: bool = False) -> None: ...
    async def stream_stats(self, name: str) -> StreamStatistics: ...
    async def last_offset(self, stream: str) -> int | None: ...
    async def resolve_offset(self, stream: str, offset: Offset) -> int: ...
    async def partitions(self, super_stream: str) -> list[str]: ...
    async def routing_of(self, super_stream: str) -> Routing: ...

    # --- stored offsets

    async def query_offset(self, reference: str, stream: str) -> int | None: ...
    async def query_beginning(self, reference: str, stream: str) -> int | None: ...
    async def store_beginning(self, reference: str, stream: str) -> None: ...
    async def store_offset(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None: ...
    async def store_offset_verified(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None: ...
    async def claim_reference(self, reference: str, stream: str) -> int | None: ...
    async def reference_claim(self, reference: str, stream: str) -> int | None: ...

    # --- consumers and publishers

    def consumer(
        self,
        stream: str,
        *,
        offset: Offset = "first",
        reference: str | None = None,
        credit: int = 10,
        on_truncated: OnTruncated = "error",
        settled: Callable[[str], int | None] | None = None,
        filter_values: Sequence[str] = (),
        match: Callable[[bytes], bool] | None = None,
        match_unfiltered: bool = False,
    ) -> AbstractAsyncContextManager[StreamReader]: ...
    def super_stream_consumer(
        self,
        super_stream: str,
        *,
        offset: Offset = "first",
        reference: str | None = None,
        credit: int = 10,
        on_truncated: OnTruncated = "error",
        settled: Callable[[str], int | None] | None = None,
        filter_values: Sequence[str] = (),
        match: Callable[[bytes], bool] | None = None,
        match_unfiltered: bool = False,
        tracking: Literal["manual"] | None = None,
        single_active: bool = False,
        on_active: Callable[[str], Awaitable[OffsetSpec]] | None = None,
        on_inactive: Callable[[str], Awaitable[None]] | None = None,
        hand_over_timeout: float = 30.0,
    ) -> AbstractAsyncContextManager[SuperStreamReader]: ...
    def lag_probe(
        self,
        stream: str,
        *,
        filter_values: Sequence[str] = (),
        match: Callable[[bytes], bool] | None = None,
        match_unfiltered: bool = False,
    ) -> StreamLag: ...
    def publisher(
        self,
        stream: str,
        *,
        reference: str | None = None,
        require_sequence: bool = False,
        filter_value: Callable[[bytes], str | None] | None = None,
        max_unconfirmed: int = 10_000,
        confirm_timeout: float | None = 30.0,
        on_error: Callable[[Sequence[int], PublishFailed], None] | None = None,
    ) -> AbstractAsyncContextManager[StreamWriter]: ...
    def super_stream_publisher(
        self,
        super_stream: str,
        *,
        routing: Routing = "hash",
        filter_value: Callable[[bytes], str | None] | None = None,
        max_unconfirmed: int = 10_000,
    ) -> AbstractAsyncContextManager[SuperStreamWriter]: ...


_METHODS = [name for name in vars(StreamEnvironment) if not name.startswith("_")]


async def environment_of(context: RunContext) -> StreamEnvironment:
    """The environment of this run. If it is closed meanwhile, the run ends with an error.

    It is `environment=` of the run, or one for `url=`, FLOWSTREAM_URL or localhost, in this order.
    Raises ConnectionFailed, AuthenticationFailed or VirtualHostAccessFailed, and EnvironmentClosed
    or ConfigurationError if the given environment cannot be used.
    """
    return await context.shared("environment", lambda: connect(context))


@asynccontextmanager
async def connect(context: RunContext) -> AsyncIterator[StreamEnvironment]:
    """The environment of the run. Notes and the watchdog show users the name of this function."""
    given = context.environment
    if given is None:
        url = context.url
        if url is None:
            url = os.environ.get(VARIABLE, DEFAULT_URL)
            StreamUrl.parse(url, VARIABLE)
        name = f"flowstream {context.pipeline}"
        async with Environment(url, telemetry=context.telemetry, name=name) as environment:
            yield environment
    elif isinstance(given, Environment):
        with given.used_by(f"pipeline {context.pipeline!r}", context.fail):
            yield given
    else:
        yield _checked(given)  # one for tests, such as MemoryEnvironment


async def refuse_super_stream(
    environment: StreamEnvironment, name: str, place: str, remedy: str
) -> None:
    """Refuse a super stream where a stream is expected, if no stream has the name.

    Brokers would create a stream of the same name, and no command could distinguish the two.
    """
    try:
        partitions = await through_losses(partial(environment.partitions, name))
    except StreamDoesNotExist:
        return
    raise ConfigurationError(
        f"{place}: this is a super stream, {remedy} (its partitions are {', '.join(partitions)})"
    )


def _checked(given: object) -> StreamEnvironment:
    """The object, unless it lacks a method of the protocol: a run would stop in the middle."""
    missing = [name for name in _METHODS if not callable(getattr(given, name, None))]
    if len(missing) == len(_METHODS) or isinstance(given, type):
        raise ConfigurationError(
            f"environment: expected an Environment that is open, got an object of the type "
            f"{type_name(given)} (an address goes into url=)"
        )
    if missing:
        raise ConfigurationError(
            f"environment: {type_name(given)} has no {listed(missing)}; "
            "flowstream.connectors.StreamEnvironment has what an environment needs"
        )
    return cast(StreamEnvironment, given)
