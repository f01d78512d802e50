"""What a consumer can be told: where it begins, its credit, its name, tracking and filters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from flowstream.checks import (
    MOST_FILTER_VALUE,
    check_callable,
    check_flag,
    check_kind,
    check_reference,
    check_seconds,
    check_text,
    check_whole,
)
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


MOST_CREDIT = 32767


@runtime_checkable
class CreditStrategy(Protocol):
    """Decides how many credits to give at each moment in the life of a chunk."""

    @property
    def initial(self) -> int:
        """The credit of a new subscription, 1 to 32767."""
        ...

    def arrived(self) -> int:
        """A chunk has come in: so much credit goes back now."""
        ...

    def done(self) -> int:
        """The application asked for the next delivery: so much credit goes back now."""
        ...


@dataclass(frozen=True, slots=True)
class CreditWhenDone:
    """Back-pressure: a chunk's credit goes back when the next delivery is asked for."""

    initial: int = 10

    def __post_init__(self) -> None:
        check_whole("credit", self.initial, 1, MOST_CREDIT)

    def arrived(self) -> int:
        return 0

    def done(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class CreditOnArrival:
    """Throughput over bounds: credit goes back as soon as a chunk has come in.

    The chunks that wait in memory are then bounded by nothing but the application's speed: use it
    where that is known to be higher than the stream's.
    """

    initial: int = 10

    def __post_init__(self) -> None:
        check_whole("credit", self.initial, 1, MOST_CREDIT)

    def arrived(self) -> int:
        return 1

    def done(self) -> int:
        return 0


def credit_strategy(credit: object) -> CreditStrategy:
    """A number of chunks as a strategy, and a strategy as it is; else ConfigurationError."""
    if isinstance(credit, int):
        return CreditWhenDone(credit)
    if not isinstance(credit, CreditStrategy):
        raise ConfigurationError(
            f"credit={shown(credit)}: expected a number of chunks from 1 to {MOST_CREDIT}, "
            "or a CreditStrategy"
        )
    check_whole("credit", credit.initial, 1, MOST_CREDIT)
    return credit


Match: TypeAlias = Callable[[bytes], bool]
"""Whether a body is wanted; the half of filtering that the broker cannot do."""
OnActive: TypeAlias = Callable[[str], Awaitable[OffsetSpec]]
"""Called with the stream when this consumer was made the active one: where does it begin?

Called again after an error that passes, such as ConnectionFailed; any other ends the consumer.
"""
Settled: TypeAlias = Callable[[str], int | None]
"""The last offset of a stream that the application is done with; None while there is none."""
OnInactive: TypeAlias = Callable[[str], Awaitable[None]]
"""Called with the stream when another consumer takes over, which waits until this returns."""


@dataclass(frozen=True, slots=True)
class AutoTracking:
    """Stores the offset of what was consumed after so many messages and after so many seconds."""

    messages: int = 10_000
    interval: float = 5.0

    def __post_init__(self) -> None:
        check_whole("AutoTracking messages", self.messages, 1)
        check_seconds("AutoTracking interval", self.interval)


OnTruncated: TypeAlias = Literal["error", "skip"]
"""What to do where retention removed messages before they were read."""


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """`name` is the reference of stored offsets and of a group of single active consumers.

    With `tracking` the stored offset decides where to begin, and `offset` only where there is none;
    "manual" stores when `store_offset` is called. RabbitMQ forgets what is stored once retention
    has passed it, and a consumer that comes back then looks like a new one; `keep_offset` has it
    stored a second time, out of reach, for names that are meant to last.

    With `filter_values` the broker leaves out chunks
    that cannot match, and `match` decides on each message. `hand_over_timeout` bounds (in seconds)
    how long a demoted consumer waits for the application to be done with what it has, before
    `on_inactive` is called; the broker waits 60 s for both.

    Where retention removes messages before they were read, the consumer ends with OffsetTruncated;
    `on_truncated="skip"` logs and counts them and goes on. Before that happens it warns: it takes
    what was handed over as done with, unless `settled` tells.
    """

    offset: OffsetSpec = field(default_factory=OffsetSpec.first)
    credit: CreditStrategy = field(default_factory=CreditWhenDone)
    name: str | None = None
    tracking: AutoTracking | str | None = None
    filter_values: Sequence[str] = ()
    match_unfiltered: bool = False
    match: Match | None = None
    single_active: bool = False
    super_stream: str | None = None
    on_active: OnActive | None = None
    on_inactive: OnInactive | None = None
    hand_over_timeout: float = 30.0
    keep_offset: bool = False
    on_truncated: OnTruncated = "error"
    settled: Settled | None = None

    def __post_init__(self) -> None:
        check_kind("offset", self.offset, OffsetSpec, "an OffsetSpec")
        check_reference("name", self.name)
        check_reference("super_stream", self.super_stream)
        for flag in ("match_unfiltered", "single_active", "keep_offset"):
            check_flag(flag, getattr(self, flag))
        check_seconds("hand_over_timeout", self.hand_over_timeout)
        for name in ("match", "on_active", "on_inactive", "settled"):
            check_callable(name, getattr(self, name))
        if self.on_truncated not in ("error", "skip"):
            raise ConfigurationError(
                f'on_truncated={shown(self.on_truncated)}: expected "error" or "skip"'
            )
        if self.single_active and self.name is None:
            raise ConfigurationError("single_active=True needs name=, the group's name")
        if (self.on_active or self.on_inactive) and not self.single_active:
            raise ConfigurationError("on_active and on_inactive need single_active=True")
        if self.tracking is not None:
            if self.tracking != "manual" and not isinstance(self.tracking, AutoTracking):
                raise ConfigurationError(
                    f'tracking={shown(self.tracking)}: give "manual" or AutoTracking(...)'
                )
            if self.name is None:
                raise ConfigurationError("tracking needs name=, under which offsets are stored")
        elif self.keep_offset:
            raise ConfigurationError("keep_offset=True needs tracking=, which stores the offset")
        self._check_filters()

    def _check_filters(self) -> None:
        values: object = self.filter_values
        if (
            isinstance(values, str)
            or not isinstance(values, Sequence)
            or not all(isinstance(value, str) for value in values)
        ):
            raise ConfigurationError(
                f"filter_values={shown(values)}: give a list of texts, such as ['eu', 'us']"
            )
        for value in values:
            check_text("filter_values", value, 0, MOST_FILTER_VALUE)
        if self.filter_values and self.match is None:
            raise ConfigurationError(
                "filter_values needs match=, which decides on each message: the broker only "
                "leaves out whole chunks"
            )
        if self.match_unfiltered and not self.filter_values:
            raise ConfigurationError("match_unfiltered needs filter_values=")

    def properties(self) -> dict[str, str]:
        """The properties of the subscription."""
        found: dict[str, str] = {}
        if self.name is not None:
            found["name"] = self.name
        if self.single_active:
            found["single-active-consumer"] = "true"
        if self.super_stream is not None:
            found["super-stream"] = self.super_stream
        return found | self.filters()

    def filters(self) -> dict[str, str]:
        """The properties that make the broker leave chunks out."""
        found: dict[str, str] = {}
        # "" stands for messages without a value. RabbitMQ forgets it in front of other values.
        values = [value for value in self.filter_values if value] or self.filter_values
        for number, value in enumerate(values):
            found[f"filter.{number}"] = value
        if self.match_unfiltered or len(values) < len(self.filter_values):
            found["match-unfiltered"] = "true"
        return found
