"""Where a reader stands in a stream: what it has settled, what is left, and how old that is.

Everything comes from the stream protocol, so it is the same on every broker: the stored offset, the
ends of the stream, and what lies between. A run tells its lag by the same probe.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing

if TYPE_CHECKING:
    from flowstream.client import Environment


@dataclass(frozen=True, slots=True)
class Standing:
    """`offset` is the stored one: the last settled message, None where nothing is stored.

    `lag` is how many messages the stream has behind it, `lag_seconds` the age of the first of them
    by its chunk's time and this machine's clock (0 without lag, None if it could not be read), and
    `lost` how many offsets were truncated before they were settled.
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


async def standing(
    environment: Environment, reference: str, stream: str, options: Mapping[str, Any] | None = None
) -> Standing:
    """Where `reference` stands in `stream` now; `options` are those of the filter it reads with."""
    with doing(f"looking at {stream}"):
        return await _standing(environment, reference, stream, options or {})


async def _standing(
    environment: Environment, reference: str, stream: str, options: Mapping[str, Any]
) -> Standing:
    stored = await environment.query_offset(reference, stream)
    begun = await environment.query_beginning(reference, stream) if stored is None else stored
    backlog = await environment.lag_probe(stream, **options).look(-1 if stored is None else stored)
    first = (await environment.stream_stats(stream)).first_offset
    age: float | None = 0.0
    if backlog.messages:
        age = None if backlog.written is None else max(0.0, time.time() - backlog.written / 1000)
    return Standing(
        stream, reference, stored, first, backlog.last, backlog.messages, age, lost(begun, first)
    )


async def retained(environment: Environment, stream: str, offset: int) -> int:
    """The offset, or the stream's first one where retention has passed it."""
    return max(offset, (await environment.stream_stats(stream)).first_offset or 0)
