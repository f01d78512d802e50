"""Places in a stream, as applications write them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from flowstream.checks import check_kind, check_whole
from flowstream.errors import ConfigurationError
from flowstream.protocol import OffsetKind, OffsetSpec
from flowstream.texts import shown

Offset: TypeAlias = str | int | datetime | timedelta | OffsetSpec
"""`"first"`, `"last"`, `"next"`, an offset, a point in time, or an age (so long ago). At a point in
time it begins with what was written then or later, also where that is in the future."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED = {"first": OffsetSpec.first, "last": OffsetSpec.last, "next": OffsetSpec.next}


def offset_spec(offset: Offset, now: datetime | None = None) -> OffsetSpec:
    """The protocol's specification; raises ConfigurationError for anything else."""
    if isinstance(offset, OffsetSpec):
        _check_spec(offset)
        return offset
    if isinstance(offset, str) and offset in _NAMED:
        return _NAMED[offset]()
    if isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 1 << 63:
        return OffsetSpec.offset(offset)
    if isinstance(offset, timedelta):
        if offset < timedelta(0):
            raise ConfigurationError(
                f"offset={shown(offset)}: a timedelta says how long ago and is not negative; "
                "give a datetime for a point in time"
            )
        present = now or datetime.now(UTC)
        offset = present - min(offset, present - EPOCH)
    if isinstance(offset, datetime):
        if offset.tzinfo is None:
            raise ConfigurationError("offset=datetime needs a time zone, such as datetime.now(UTC)")
        return OffsetSpec.timestamp(max(0, int(offset.timestamp() * 1000)))
    raise ConfigurationError(
        f'offset={shown(offset)}: give "first", "last", "next", a number from 0 on, a datetime or '
        "a timedelta"
    )


def _check_spec(spec: OffsetSpec) -> None:
    """Made by hand it may hold anything; what brokers send is read without this."""
    check_kind("OffsetSpec kind", spec.kind, OffsetKind, "an OffsetKind")
    check_whole("OffsetSpec value", spec.value, 0)
