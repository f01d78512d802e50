"""All streams and super streams by name, and the rules for creating and deleting them.

Every method decides at once, in memory, and returns a response code and the changes that the caller
has to commit. Sources: rabbit_stream_manager and rabbit_stream_utils for the rules and codes,
rabbit_amqqueue for the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowstream.broker.records import (
    AddStream,
    AddSuperStream,
    Change,
    Contents,
    DropStream,
    DropSuperStream,
    StreamRecord,
)
from flowstream.broker.stream import Stream, parse_age
from flowstream.checks import MAX_NAME, longest_stream
from flowstream.protocol import Code

VIRTUAL_HOST = "/"
MAX_STREAM = longest_stream(VIRTUAL_HOST)
"""Bytes of a stream's name. RabbitMQ accepts up to 255, but cannot store a stream named so."""
MAX_PARTITIONS = 1000
MAX_SEGMENT_BYTES = 3_000_000_000
LEADER_LOCATORS = ("client-local", "balanced", "least-leaders", "random")
_LIMITS = {
    "max-length-bytes": (0, None),
    "stream-max-segment-size-bytes": (0, MAX_SEGMENT_BYTES),
    "initial-cluster-size": (1, None),
    "stream-filter-size-bytes": (16, 255),
}
ARGUMENTS = (*_LIMITS, "max-age", "queue-leader-locator")


def clean_name(name: str, most: int = MAX_NAME) -> str | None:
    """The name without line ends, as RabbitMQ stores it; None if the name is not allowed."""
    name = name.replace("\n", "").replace("\r", "")
    if not name or name.startswith("amq.") or len(name.encode()) > most:
        return None
    return name


def clean_arguments(arguments: Mapping[str, str]) -> dict[str, str] | None:
    """The arguments that the server knows; None if one of them has an invalid value."""
    known = {key: value for key, value in arguments.items() if key in ARGUMENTS}
    for key, (least, most) in _LIMITS.items():
        if key not in known:
            continue
        try:
            value = int(known[key])
        except ValueError:
            return None
        if value < least or (most is not None and value > most):
            return None
        known[key] = str(value)
    if known.get("queue-leader-locator", "balanced") not in LEADER_LOCATORS:
        return None
    try:
        parse_age(known.get("max-age", "1D"))
    except ValueError:
        return None
    return known


class Catalog:
    """Streams and super streams by name."""

    def __init__(self, contents: Contents) -> None:
        self.streams: dict[str, Stream] = {
            record.name: Stream(record) for record in contents.streams
        }
        self.super_streams: dict[str, tuple[tuple[str, str], ...]] = {
            name: tuple(partitions) for name, partitions in contents.super_streams.items()
        }
        self._next_key = contents.next_key

    # --- streams ----------------------------------------------------------------------------

    def create(self, name: str, arguments: Mapping[str, str]) -> tuple[Code, list[Change]]:
        """Create a stream, unless there is one of that name or something is invalid."""
        cleaned = clean_name(name, MAX_STREAM)
        known = clean_arguments(arguments)
        if cleaned is None or known is None:
            return Code.PRECONDITION_FAILED, []
        existing = self.streams.get(cleaned)
        if existing is not None:
            same = existing.arguments == known
            return (Code.STREAM_ALREADY_EXISTS if same else Code.PRECONDITION_FAILED), []
        record = StreamRecord(self._next_key, cleaned, known)
        self._next_key += 1
        self.streams[cleaned] = Stream(record)
        return Code.OK, [AddStream(record.key, cleaned, known)]

    def delete(self, name: str) -> tuple[Stream | None, list[Change]]:
        """Remove a stream, also from super streams; None if there is no stream of that name."""
        stream = self.streams.pop(name, None)
        if stream is None:
            return None, []
        stream.deleted = True
        changes: list[Change] = [DropStream(stream.key)]
        for super_stream, partitions in list(self.super_streams.items()):
            kept = tuple(pair for pair in partitions if pair[0] != name)
            if kept != partitions:
                self.super_streams[super_stream] = kept
                changes += (DropSuperStream(super_stream), AddSuperStream(super_stream, kept))
        return stream, changes

    # --- super streams ----------------------------------------------------------------------

    def create_super(
        self,
        name: str,
        partitions: Sequence[str],
        binding_keys: Sequence[str],
        arguments: Mapping[str, str],
    ) -> tuple[Code, list[Change]]:
        """Create a super stream with all its partitions, or nothing."""
        cleaned = clean_name(name)
        names = [clean_name(partition, MAX_STREAM) for partition in partitions]
        if (
            cleaned is None
            or None in names
            or len(partitions) != len(binding_keys)
            or len(partitions) > MAX_PARTITIONS
            or len(set(partitions)) != len(partitions)
            or clean_arguments(arguments) is None
        ):
            return Code.PRECONDITION_FAILED, []
        if cleaned in self.super_streams or any(found in self.streams for found in names):
            return Code.STREAM_ALREADY_EXISTS, []
        changes: list[Change] = []
        for partition in partitions:
            changes += self.create(partition, arguments)[1]
        pairs = tuple(zip((found or "" for found in names), binding_keys, strict=True))
        self.super_streams[cleaned] = pairs
        return Code.OK, [*changes, AddSuperStream(cleaned, pairs)]

    def delete_super(self, name: str) -> tuple[list[Stream] | None, list[Change]]:
        """Remove a super stream and its partitions; None if there is none of that name."""
        partitions = self.super_streams.pop(name, None)
        if partitions is None:
            return None, []
        changes: list[Change] = [DropSuperStream(name)]
        streams: list[Stream] = []
        for partition, _ in partitions:
            stream, dropped = self.delete(partition)
            changes += dropped
            if stream is not None:
                streams.append(stream)
        return streams, changes

    def partitions(self, name: str) -> tuple[str, ...] | None:
        """The names of the partitions in their order; None if there is no such super stream."""
        pairs = self.super_streams.get(name)
        return None if pairs is None else tuple(partition for partition, _ in pairs)

    def route(self, routing_key: str, name: str) -> tuple[str, ...] | None:
        """The partitions bound with exactly this key; None if there is no such super stream."""
        pairs = self.super_streams.get(name)
        if pairs is None:
            return None
        return tuple(partition for partition, key in pairs if key == routing_key)

    def partition_index(self, name: str, partition: str) -> int | None:
        partitions = self.partitions(name) or ()
        return partitions.index(partition) if partition in partitions else None
