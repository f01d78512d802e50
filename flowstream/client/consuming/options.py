"""The options of a consumer, written once (see flowstream/schema.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

from flowstream.errors import ConfigurationError
from flowstream.protocol import OffsetKind, OffsetSpec
from flowstream.schema import FILTER_VALUE, NAME, SECONDS, Rule, a, check, checked, listing, whole
from flowstream.texts import describe, interrupts, shown

Offset: TypeAlias = Literal["first", "last", "next"] | int | datetime | timedelta | OffsetSpec
"""Where to begin: `"first"`, `"last"`, `"next"`, an offset, a time, or an age such as
`timedelta(hours=1)`. At a time it begins with the first message written then or later; the time may
be in the future."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED = {"first": OffsetSpec.first, "last": OffsetSpec.last, "next": OffsetSpec.next}


def offset_spec(
    offset: Offset, now: datetime | None = None, *, option: str = "offset"
) -> OffsetSpec:
    """The offset in the form of the protocol; raises ConfigurationError for an invalid one."""
    if isinstance(offset, OffsetSpec):
        _check_spec(option, offset)
        return offset
    if isinstance(offset, str) and offset in _NAMED:
        return _NAMED[offset]()
    if isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 1 << 63:
        return OffsetSpec.offset(offset)
    if isinstance(offset, timedelta):
        if offset < timedelta(0):
            raise ConfigurationError(
                f"{option}={shown(offset)}: a timedelta is an age and must not be negative; use a "
                "datetime for a time in the future"
            )
        present = now or datetime.now(UTC)
        offset = present - min(offset, present - EPOCH)
    if isinstance(offset, datetime):
        if offset.tzinfo is None:
            raise ConfigurationError(
                f"{option}={shown(offset)}: expected a datetime with a time zone, such as "
                "datetime.now(UTC)"
            )
        return OffsetSpec.timestamp(max(0, int(offset.timestamp() * 1000)))
    raise ConfigurationError(
        f'{option}={shown(offset)}: an offset is 0 or more, or "first", "last", "next", a datetime '
        "or a timedelta"
    )


def _check_spec(option: str, spec: OffsetSpec) -> None:
    """Checks a specification that an application made; those of brokers are decoded checked."""
    a(OffsetKind, "an OffsetKind").check(f"{option} > OffsetSpec > kind", spec.kind)
    whole(0).check(f"{option} > OffsetSpec > value", spec.value)


MOST_CREDIT = 32767
CHUNKS = whole(1, MOST_CREDIT, unit="chunks")


@runtime_checkable
class CreditStrategy(Protocol):
    """Decides when credit is returned to the broker.

    One credit is one chunk. A broker stops sending while a subscription's credit is at or below
    half of its initial credit, and above that uses all of it (3.11.8 and later). So credit that is
    held back must be returned in the end, and at most `initial` chunks are in transit or in memory.
    """

    @property
    def initial(self) -> int:
        """The credit of a new subscription, 1 to 32767."""
        ...

    def arrived(self) -> int:
        """The credit to return when a chunk arrives."""
        ...

    def done(self) -> int:
        """The credit to return when the application asks for the next delivery."""
        ...


@listing
@dataclass(frozen=True, slots=True)
class CreditWhenDone:
    """Back-pressure: a chunk's credit is returned when the next delivery is asked for.

    The credit of up to a quarter of `initial` chunks is returned together (`credit_together`).
    """

    initial: Annotated[int, CHUNKS, "chunks that the broker may send ahead"] = 10

    def __post_init__(self) -> None:
        check(self, "CreditWhenDone")

    def arrived(self) -> int:
        return 0

    def done(self) -> int:
        return 1


@listing
@dataclass(frozen=True, slots=True)
class CreditOnArrival:
    """No back-pressure: a chunk's credit is returned when the chunk arrives.

    The credit of up to a quarter of `initial` chunks is returned together (`credit_together`).
    The number of chunks in memory is then unbounded. Use it only if the application is known to be
    faster than the stream.
    """

    initial: Annotated[int, CHUNKS, "chunks that the broker may send ahead"] = 10

    def __post_init__(self) -> None:
        check(self, "CreditOnArrival")

    def arrived(self) -> int:
        return 1

    def done(self) -> int:
        return 0


def credit_strategy(credit: int | CreditStrategy) -> CreditStrategy:
    """The strategy for a number of chunks, or the given strategy."""
    return CreditWhenDone(credit) if isinstance(credit, int) else credit


def credit_together(strategy: CreditStrategy) -> int:
    """How much credit is returned in one frame: a frame for each chunk costs both sides as much as
    a chunk of few messages does.

    The broker is left with more than half of `initial`, so it never waits for what is held back
    here. Other strategies may hold back credit themselves: what they return is returned at once.
    """
    own = not isinstance(strategy, CreditWhenDone | CreditOnArrival)
    return 1 if own else max((strategy.initial + 2) // 4, 1)


def credit_from(ask: Callable[[], int]) -> int:
    """What a method of a strategy returns; raises ConfigurationError if it is not usable."""
    try:
        credit = ask()
    except BaseException as error:
        if interrupts(error):
            raise
        raise ConfigurationError(f"credit: {shown(ask)} raised {describe(error)}") from error
    if type(credit) is not int or not 0 <= credit <= MOST_CREDIT:
        raise ConfigurationError(
            f"credit: {shown(ask)} returned {shown(credit)}: expected a whole number from 0 to "
            f"{MOST_CREDIT} (chunks)"
        )
    return credit


def _check_credit(option: str, credit: object) -> None:
    if isinstance(credit, CreditStrategy):
        CHUNKS.check(f"{option} > initial", credit.initial)
    elif isinstance(credit, int):
        CHUNKS.check(option, credit)
    else:
        raise ConfigurationError(f"{option}={shown(credit)}: expected {CREDIT.expected}")


Match: TypeAlias = Callable[[bytes], bool]
"""Decides whether a message is delivered; brokers filter whole chunks only."""
OnActive: TypeAlias = Callable[[str], Awaitable[OffsetSpec]]
"""Called with the stream when this consumer becomes the active one; returns where it begins.

It is called again after a transient error, such as ConnectionFailed; any other closes the consumer.
"""
Settled: TypeAlias = Callable[[str], int | None]
"""Returns the last offset of a stream that the application has settled, or None."""
OnInactive: TypeAlias = Callable[[str], Awaitable[None]]
"""Called with the stream before another consumer takes over, which waits until this returns."""


@listing
@dataclass(frozen=True, slots=True)
class AutoTracking:
    """Stores the offset of what was processed after so many messages, and at least so often."""

    messages: Annotated[
        int, whole(1, unit="messages"), "messages after which the offset is stored"
    ] = 10_000
    interval: Annotated[float, SECONDS, "seconds after which it is stored at the latest"] = 5.0

    def __post_init__(self) -> None:
        check(self, "AutoTracking")


OnTruncated: TypeAlias = Literal["error", "skip"]
"""What to do if retention removed messages before they were read."""


OFFSET = checked(
    lambda option, value: offset_spec(value, option=option),
    '"first", "last", "next", an offset, a datetime or a timedelta',
)
CREDIT = checked(
    _check_credit,
    f"a whole number from 1 to {MOST_CREDIT} (chunks), or a CreditStrategy",
)
TRACKING = Rule(
    '"manual" or AutoTracking(...)',
    lambda value: value == "manual" or isinstance(value, AutoTracking),
)


def _strings(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(each, str) for each in value)
    )


@dataclass(frozen=True, kw_only=True)
class SharedConsumerOptions:
    """Options of a consumer of a stream, and of one of a super stream.

    With `tracking` the consumer begins behind the stored offset, and at `offset` only if none is
    stored. AutoTracking stores offsets by itself; with "manual" call `store_offset`. RabbitMQ drops
    a stored offset when retention has passed it, and the consumer would then begin like a new one.
    `keep_offset` stores a second copy that retention does not reach, for references that are used
    for long.

    With `filter_values` the broker leaves out chunks that contain no match, and `match` decides
    about each message. `hand_over_timeout` is how many seconds a demoted consumer waits until the
    application has processed the last delivery, before `on_inactive` is called. The broker waits
    60 s for both.

    If retention removes messages before they were read, the consumer fails with OffsetTruncated;
    with `on_truncated="skip"` it logs and counts them, and continues. It warns before that happens.
    For this, delivered messages count as settled, unless `settled` says otherwise.
    """

    offset: Annotated[Offset, OFFSET, "where to begin"] = "first"
    credit: Annotated[int | CreditStrategy, CREDIT, "chunks that the broker may send ahead"] = 10
    reference: Annotated[
        str | None, NAME, "the name of stored offsets, and of a group of single active consumers"
    ] = None
    tracking: Annotated[
        AutoTracking | Literal["manual"] | None,
        TRACKING,
        "how offsets are stored, if they are",
    ] = None
    filter_values: Annotated[
        Sequence[str], Rule("a list of strings, such as ['eu', 'us']", _strings), "what is wanted"
    ] = ()
    match_unfiltered: Annotated[bool, "whether messages without a filter value are wanted"] = False
    match: Annotated[Match | None, "whether a body is wanted"] = None
    single_active: Annotated[bool, "one consumer of the group is active at a time"] = False
    on_active: Annotated[OnActive | None, "where to begin, when this one becomes active"] = None
    on_inactive: Annotated[OnInactive | None, "called when another one becomes active"] = None
    hand_over_timeout: Annotated[
        float, SECONDS, "seconds that the application may take to be done when another takes over"
    ] = 30.0
    keep_offset: Annotated[bool, "store offsets also where retention does not remove them"] = False
    on_truncated: Annotated[
        OnTruncated, "what happens where retention removed messages that were not read"
    ] = "error"
    settled: Annotated[Settled | None, "the last offset that the application is done with"] = None

    def __post_init__(self) -> None:
        check(self)
        if self.single_active and self.reference is None:
            raise ConfigurationError(
                "single_active=True: it needs reference=, the name of the group"
            )
        for name in ("on_active", "on_inactive"):
            value = getattr(self, name)
            if value is not None and not self.single_active:
                raise ConfigurationError(f"{name}={shown(value)}: it needs single_active=True")
        if self.tracking is not None and self.reference is None:
            raise ConfigurationError(
                f"tracking={shown(self.tracking)}: it needs reference=, under which offsets are "
                "stored"
            )
        if self.tracking is None and self.keep_offset:
            raise ConfigurationError(
                "keep_offset=True: it needs tracking=, which stores the offset"
            )
        self._check_filters()
        # "an hour ago" is so long before now, also for partitions that are opened later
        object.__setattr__(self, "offset", offset_spec(self.offset))

    def _check_filters(self) -> None:
        for value in self.filter_values:
            FILTER_VALUE.check("filter_values", value)
        if self.filter_values and self.match is None:
            raise ConfigurationError(
                f"filter_values={shown(self.filter_values)}: it needs match=, which decides on "
                "each message: the broker only leaves out whole chunks"
            )
        if self.match_unfiltered and not self.filter_values:
            raise ConfigurationError("match_unfiltered=True: it needs filter_values=")

    @property
    def begin(self) -> OffsetSpec:
        """Where to begin, as the protocol has it."""
        return offset_spec(self.offset)

    @property
    def credit_strategy(self) -> CreditStrategy:
        """How credit is given back."""
        return credit_strategy(self.credit)

    def filters(self) -> dict[str, str]:
        """The properties that select the broker's filter."""
        found: dict[str, str] = {}
        # "" means messages without a value. RabbitMQ ignores it if other values follow.
        values = [value for value in self.filter_values if value] or self.filter_values
        for number, value in enumerate(values):
            found[f"filter.{number}"] = value
        if self.match_unfiltered or len(values) < len(self.filter_values):
            found["match-unfiltered"] = "true"
        return found


@dataclass(frozen=True, kw_only=True)
class ConsumerOptions(SharedConsumerOptions):
    """Options of a consumer of one stream."""

    super_stream: Annotated[
        str | None, NAME, "the super stream that it is a partition of, for single active consumers"
    ] = None

    def properties(self) -> dict[str, str]:
        """The properties to subscribe with."""
        found: dict[str, str] = {}
        if self.reference is not None:
            found["name"] = self.reference
        if self.single_active:
            found["single-active-consumer"] = "true"
        if self.super_stream is not None:
            found["super-stream"] = self.super_stream
        return found | self.filters()


@dataclass(frozen=True)
class ConsumerArguments(ConsumerOptions):
    """What `Environment.consumer` takes."""

    stream: Annotated[str, NAME, "the stream to consume"]


@dataclass(frozen=True)
class SuperStreamConsumerArguments(SharedConsumerOptions):
    """What `Environment.super_stream_consumer` takes."""

    super_stream: Annotated[str, NAME, "the super stream to consume"]
    _: KW_ONLY
    refresh: Annotated[float, SECONDS, "seconds between two looks at the partitions"] = 60.0
