"""Where a reader stands in a stream: what it has settled, what is left, and how old that is.

Everything comes from the stream protocol, so it is the same on every broker: the stored offset, the
ends of the stream, and the time at which the chunk of the oldest unsettled message was written.
Messages are counted as offsets; a few of those are used up by the broker's own records.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstream.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from flowstream.client import Environment

PATIENCE = 5.0
"""Seconds to wait for the chunk that tells how old the oldest unsettled message is."""


@dataclass(frozen=True, slots=True)
class Standing:
    """`offset` is the stored one: the last settled message, None where nothing is stored.

    `lag` is how many offsets the stream has behind it, `lag_seconds` the age of the first of them
    by its chunk's time and this machine's clock (0 without lag, None if it could not be read), and
    `lost` how many were truncated before they were settled.
    """

    stream: str
    reference: str
    offset: int | None
    first_offset: int | None
    last_offset: int | None
    lag: int
    lag_seconds: float | None
    lost: int

    def row(self) -> dict[str, Any]:
        """Its fields, for tables and programs."""
        return {name: getattr(self, name) for name in self.__slots__}


def lag(stored: int | None, first: int | None, last: int | None) -> int:
    """Offsets after the stored one that the stream still has; all of them where none is stored."""
    if first is None or last is None:
        return 0
    done = first - 1 if stored is None else max(stored, first - 1)
    return max(0, last - done)


def lost(stored: int | None, first: int | None) -> int:
    """Offsets after the stored one that the stream no longer has."""
    return 0 if stored is None or first is None else max(0, first - stored - 1)


async def partitions_of(environment: Environment, name: str) -> list[str] | None:
    """The partitions of a super stream, None where `name` is a stream.

    Raises CommandError where it is neither, or both: commands take either by its name.
    """
    from flowstream.errors import StreamDoesNotExist

    try:
        partitions = await environment.partitions(name)
    except StreamDoesNotExist:
        partitions = None
    if partitions is None:
        try:
            await environment.metadata(name)
        except StreamDoesNotExist as error:
            raise CommandError(
                f"{error}, and no super stream has this name", ExitCode.STREAM_MISSING
            ) from error
    elif await environment.stream_exists(name):
        raise CommandError(
            f"{name} is the name of a stream and of a super stream too (partitions: "
            f"{', '.join(partitions)}), so it does not say which; name a partition, or delete one "
            "of the two (streams delete, super-streams delete)",
            ExitCode.USAGE,
        )
    return partitions


async def streams_of(environment: Environment, name: str) -> list[str]:
    """The partitions of a super stream, or the stream itself; as `partitions_of`."""
    return await partitions_of(environment, name) or [name]


async def require_stream(environment: Environment, name: str, why: str) -> None:
    """Raises CommandError, which says `why`, where `name` is a super stream; as `partitions_of`."""
    partitions = await partitions_of(environment, name)
    if partitions is not None:
        raise CommandError(
            f"{name} is a super stream, and {why} (partitions: {', '.join(partitions)})",
            ExitCode.USAGE,
        )


async def require_super_stream(environment: Environment, name: str) -> list[str]:
    """The partitions of a super stream; raises CommandError where it is a stream, or missing."""
    from flowstream.errors import StreamDoesNotExist

    try:
        return await environment.partitions(name)
    except StreamDoesNotExist as error:
        if not await environment.stream_exists(name):
            raise
        raise CommandError(
            f"{name} is a stream and not a super stream", ExitCode.STREAM_MISSING
        ) from error


async def standing(environment: Environment, reference: str, stream: str) -> Standing:
    """Where `reference` stands in `stream` now."""
    stored = await environment.query_offset(reference, stream)
    begun = await environment.query_beginning(reference, stream) if stored is None else stored
    last = await environment.last_offset(stream)
    first = (await environment.stream_stats(stream)).first_offset
    behind = lag(stored, first, last)
    age: float | None = 0.0
    if behind and first is not None:
        written = await _written(
            environment, stream, max(first, -1 if stored is None else stored + 1)
        )
        age = None if written is None else max(0.0, time.time() - written / 1000)
    return Standing(stream, reference, stored, first, last, behind, age, lost(begun, first))


async def retained(environment: Environment, stream: str, offset: int) -> int:
    """The offset, or the stream's first one where retention has passed it."""
    return max(offset, (await environment.stream_stats(stream)).first_offset or 0)


async def _written(environment: Environment, stream: str, offset: int) -> int | None:
    """When the chunk of the first message from `offset` on was written, in ms since 1970."""
    import anyio

    options: dict[str, Any] = {"credit": 1, "on_truncated": "skip"}
    async with environment.consumer(stream, offset=offset, **options) as consumer:
        with anyio.move_on_after(PATIENCE):
            return int((await anext(consumer)).timestamp)
    return None
