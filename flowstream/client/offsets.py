"""Places in a stream, as applications write them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from flowstream.errors import ConfigurationError
from flowstream.protocol import OffsetSpec

Offset: TypeAlias = str | int | datetime | timedelta | OffsetSpec
"""`"first"`, `"last"`, `"next"`, an offset, a point in time, or an age (so long ago)."""

_NAMED = {"first": OffsetSpec.first, "last": OffsetSpec.last, "next": OffsetSpec.next}


def offset_spec(offset: Offset, now: datetime | None = None) -> OffsetSpec:
    """The protocol's specification; raises ConfigurationError for anything else."""
    if isinstance(offset, OffsetSpec):
        return offset
    if isinstance(offset, str) and offset in _NAMED:
        return _NAMED[offset]()
    if isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 1 << 63:
        return OffsetSpec.offset(offset)
    if isinstance(offset, timedelta):
        offset = (now or datetime.now(UTC)) - abs(offset)
    if isinstance(offset, datetime):
        if offset.tzinfo is None:
            raise ConfigurationError("offset=datetime needs a time zone, such as datetime.now(UTC)")
        return OffsetSpec.timestamp(int(offset.timestamp() * 1000))
    raise ConfigurationError(
        f'offset={offset!r}: give "first", "last", "next", a number from 0 on, a datetime or a '
        "timedelta"
    )
