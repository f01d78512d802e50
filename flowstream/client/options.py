"""How publishers and consumers behave; checked when they are made, by the name of the option."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from flowstream.checks import (
    MOST_FILTER_VALUE,
    check_callable,
    check_flag,
    check_kind,
    check_name,
    check_seconds,
    check_text,
    check_whole,
)
from flowstream.errors import ConfigurationError, PublishFailed
from flowstream.protocol import Compression, OffsetSpec, sub_batch
from flowstream.texts import shown

from .consuming.credit import CreditStrategy, CreditWhenDone

Match: TypeAlias = Callable[[bytes], bool]
"""Whether a body is wanted; the half of filtering that the broker cannot do."""
OnConfirm: TypeAlias = Callable[[Sequence[int]], None]
OnError: TypeAlias = Callable[[Sequence[int], PublishFailed], None]
OnActive: TypeAlias = Callable[[str], Awaitable[OffsetSpec]]
"""Called with the stream when this consumer was made the active one: where does it begin?

Called again after an error that passes, such as ConnectionFailed; any other ends the consumer.
"""
Settled: TypeAlias = Callable[[str], int | None]
"""The last offset of a stream that the application is done with; None while there is none."""
OnInactive: TypeAlias = Callable[[str], Awaitable[None]]
"""Called with the stream when another consumer takes over, which waits until this returns."""


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """`max_unconfirmed` (messages) and `max_unconfirmed_bytes` bound what is not confirmed yet;
    beyond them sending waits. A message that was not confirmed `confirm_timeout` seconds after it
    was accepted fails (None: it is tried for as long as the publisher lives).

    With `sub_batch` so many messages at most share one entry, one publishing id and one
    `compression`. `on_confirm` gets publishing ids as they are confirmed; `on_error` those that
    failed, and why; without it they are raised by `flush`.
    """

    reference: str | None = None
    max_unconfirmed: int = 10_000
    max_unconfirmed_bytes: int = 64 * 1024 * 1024
    confirm_timeout: float | None = 30.0
    filter_value: Callable[[bytes], str | None] | None = None
    sub_batch: int = 0
    compression: Compression = Compression.NONE
    on_confirm: OnConfirm | None = None
    on_error: OnError | None = None

    def __post_init__(self) -> None:
        check_reference("reference", self.reference)
        check_whole("max_unconfirmed", self.max_unconfirmed, 1)
        check_whole("max_unconfirmed_bytes", self.max_unconfirmed_bytes, 1)
        if self.confirm_timeout is not None:
            check_seconds("confirm_timeout", self.confirm_timeout)
        check_whole("sub_batch", self.sub_batch, 0, 65535)
        for name in ("filter_value", "on_confirm", "on_error"):
            check_callable(name, getattr(self, name))
        if not isinstance(self.compression, Compression):
            raise ConfigurationError(
                f"compression={shown(self.compression)}: give one of "
                f"{', '.join(map(str, Compression.__members__))}, such as Compression.GZIP"
            )
        if self.sub_batch and self.filter_value is not None:
            raise ConfigurationError("filter_value and sub_batch exclude each other")
        if self.compression and not self.sub_batch:
            raise ConfigurationError("compression needs sub_batch=, the messages compressed as one")
        sub_batch(0, [b""], self.compression)  # NotSupported, naming the extra, where it is missing


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


def check_reference(option: str, value: str | None) -> None:
    """A reference as `check_name` wants it, or None for none."""
    if value is not None:
        check_name(option, value)
