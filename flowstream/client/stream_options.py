"""The options of a new stream or super stream, written once (see flowstream/schema.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from flowstream.checks import MAX_NAME
from flowstream.errors import ConfigurationError
from flowstream.schema import NAME, Rule, checked, text, whole
from flowstream.texts import shown

MOST_PARTITIONS = 10_000

_AGE = re.compile(r"[1-9]\d*[YMDhms]")


def _is_age(value: object) -> bool:
    if isinstance(value, timedelta):
        return value >= timedelta(seconds=1)
    return isinstance(value, str) and _AGE.fullmatch(value) is not None


AGE = Rule(
    "a timedelta of at least a second, or a number with one of the units Y, M, D, h, m and s, such "
    'as "12h"',
    _is_age,
)
KEY = text(0, MAX_NAME)


def _check_partitions(option: str, value: object) -> None:
    if isinstance(value, int):
        whole(1, MOST_PARTITIONS).check(option, value)
        return
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigurationError(f"{option}={shown(value)}: expected {PARTITIONS.expected}")
    for key in value:
        KEY.check(option, key)
    if not value or len(set(value)) != len(value):
        raise ConfigurationError(
            f"{option}={shown(value)}: expected at least one routing key, and no duplicates"
        )


PARTITIONS = checked(_check_partitions, "a number of at least 1, or a list of routing keys")


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Options of a stream, and of each partition of a super stream. None: the broker's default."""

    max_length_bytes: Annotated[
        int | None, whole(1, unit="bytes"), "above this size the oldest segments are removed"
    ] = None
    max_age: Annotated[timedelta | str | None, AGE, "segments that are older are removed"] = None
    max_segment_size_bytes: Annotated[
        int | None, whole(1, unit="bytes"), "the size at which a new segment begins"
    ] = None
    filter_size_bytes: Annotated[
        int | None, whole(16, 255, unit="bytes"), "the size of a chunk's filter"
    ] = None
    initial_cluster_size: Annotated[
        int | None, whole(1, unit="nodes"), "the nodes that have a copy"
    ] = None
    leader_locator: Annotated[
        Literal["client-local", "balanced"] | None,
        "how the node of the leader is chosen",
    ] = None
    exist_ok: Annotated[bool, "accept one that exists with the same options"] = False

    def arguments(self) -> dict[str, str]:
        """The arguments of the protocol's Create."""
        age: Any = self.max_age
        if isinstance(age, timedelta):
            age = f"{int(age.total_seconds())}s"
        found = {
            "max-length-bytes": self.max_length_bytes,
            "max-age": age,
            "stream-max-segment-size-bytes": self.max_segment_size_bytes,
            "stream-filter-size-bytes": self.filter_size_bytes,
            "initial-cluster-size": self.initial_cluster_size,
            "queue-leader-locator": self.leader_locator,
        }
        return {key: str(value) for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class CreateStreamArguments(StreamOptions):
    """What `Environment.create_stream` takes."""

    name: Annotated[str, NAME, "the name of the new stream"]


@dataclass(frozen=True)
class CreateSuperStreamArguments(StreamOptions):
    """What `Environment.create_super_stream` takes."""

    name: Annotated[str, NAME, "the name of the new super stream"]
    _: KW_ONLY
    partitions: Annotated[
        int | Sequence[str], PARTITIONS, "their number, or their routing keys"
    ] = 3

    @property
    def keys(self) -> tuple[str, ...]:
        """The routing keys of the partitions: numbers, unless they are given."""
        if isinstance(self.partitions, int):
            return tuple(str(number) for number in range(self.partitions))
        return tuple(self.partitions)
