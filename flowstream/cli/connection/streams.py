"""Streams and super streams, by the name that a command was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing
from flowstream.client import Environment
from flowstream.errors import (
    PreconditionFailed,
    StreamAlreadyExists,
    StreamDoesNotExist,
    StreamNotAvailable,
)


async def partitions_of(environment: Environment, name: str) -> list[str] | None:
    """The partitions of a super stream; None if `name` is a stream.

    Raises CommandError if it is neither, or both.
    """
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
        except StreamNotAvailable:
            pass  # it exists; another process may be creating it
    elif await environment.stream_exists(name):
        raise CommandError(
            f"{name} is ambiguous: a stream and a super stream have this name (partitions: "
            f"{', '.join(partitions)}); name a partition, or delete one of the two "
            "(streams delete, super-streams delete)",
            ExitCode.USAGE,
        )
    return partitions


async def streams_of(environment: Environment, name: str) -> list[str]:
    """The partitions of a super stream, or the stream itself. Raises as `partitions_of`."""
    return await partitions_of(environment, name) or [name]


async def require_stream(environment: Environment, name: str, why: str) -> None:
    """Raise CommandError, with the reason `why`, if `name` is a super stream."""
    partitions = await partitions_of(environment, name)
    if partitions is not None:
        raise CommandError(
            f"{name} is a super stream, and {why} (partitions: {', '.join(partitions)})",
            ExitCode.USAGE,
        )


async def require_super_stream(environment: Environment, name: str) -> list[str]:
    """The partitions of a super stream. Raises CommandError if it is a stream."""
    try:
        return await environment.partitions(name)
    except StreamDoesNotExist as error:
        if not await environment.stream_exists(name):
            raise
        raise CommandError(
            f"{name} is a stream, not a super stream", ExitCode.STREAM_MISSING
        ) from error


async def refuse_super_stream(environment: Environment, name: str, remedy: str) -> None:
    """Raise CommandError if `name` is a super stream.

    Brokers allow a stream of the same name, but commands could not tell the two apart.
    """
    try:
        await environment.partitions(name)
    except StreamDoesNotExist:
        return
    raise CommandError(f"{name} is a super stream; {remedy}", ExitCode.USAGE)


async def refuse_partition(environment: Environment, stream: str, remedy: str) -> None:
    """Raise CommandError if the stream is a partition of a super stream, by its name NAME-KEY.

    The protocol has no question for the super stream of a stream.
    """
    for place, character in enumerate(stream):
        name = stream[:place]
        if character != "-" or not name:
            continue
        try:
            partitions = await environment.partitions(name)
        except StreamDoesNotExist:
            continue
        if stream in partitions:
            raise CommandError(
                f"{stream} is a partition of the super stream {name}; {remedy.format(name=name)}",
                ExitCode.USAGE,
            )


async def retained(environment: Environment, stream: str, offset: int) -> int:
    """The offset, or the stream's first offset if retention has deleted more."""
    return max(offset, (await environment.stream_stats(stream)).first_offset or 0)


async def stats_of(environment: Environment, stream: str) -> dict[str, Any]:
    """A row on a stream. `replicas` counts every node that has it, including the leader."""
    with doing(f"reading the state of {stream}"):
        stats = await environment.stream_stats(stream)
        nodes = await environment.metadata(stream)
        last = await environment.last_offset(stream)
    return {
        "stream": stream,
        "first_offset": stats.first_offset,
        "last_offset": last,
        "leader": None if nodes.leader is None else str(nodes.leader),
        "replicas": len(nodes.replicas) + (nodes.leader is not None),
    }


@contextmanager
def explain_existing(name: str) -> Iterator[None]:
    """Explain the error for a name that exists already."""
    try:
        yield
    except (StreamAlreadyExists, PreconditionFailed) as error:
        other = " with other arguments" if isinstance(error, PreconditionFailed) else ""
        raise CommandError(
            f"{name} exists already{other}; --if-missing leaves it unchanged", ExitCode.SERVER
        ) from error


@contextmanager
def explain_missing(name: str) -> Iterator[None]:
    """Explain the error for a name that does not exist."""
    try:
        yield
    except StreamDoesNotExist as error:
        raise CommandError(
            f"{name} does not exist; with --if-exists this is not an error", ExitCode.STREAM_MISSING
        ) from error
