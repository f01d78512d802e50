"""Options of a publisher: the window, the confirm timeout, sub-entries, callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flowstream.checks import (
    check_callable,
    check_reference,
    check_seconds,
    check_whole,
)
from flowstream.errors import ConfigurationError, PublishFailed
from flowstream.protocol import Compression, sub_entry
from flowstream.texts import shown

OnConfirm: TypeAlias = Callable[[Sequence[int]], None]
OnError: TypeAlias = Callable[[Sequence[int], PublishFailed], None]


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """The options of a publisher; `Environment.publisher` has the same parameters.

    `reference` is the name under which the broker deduplicates publishing ids. `max_unconfirmed`
    (messages) and `max_unconfirmed_bytes` limit what is not confirmed yet; at the limit sending
    waits. A message that is not confirmed `confirm_timeout` seconds after it was accepted fails
    (None: it is sent again as long as the publisher is open).

    With `sub_entry_size` up to so many messages share one entry, with one publishing id and one
    `compression`. `on_confirm` is called with the publishing ids that were confirmed, `on_error`
    with those that failed and the error. Without `on_error` the error is raised by `flush`.
    """

    reference: str | None = None
    max_unconfirmed: int = 10_000
    max_unconfirmed_bytes: int = 64 * 1024 * 1024
    confirm_timeout: float | None = 30.0
    filter_value: Callable[[bytes], str | None] | None = None
    sub_entry_size: int = 0
    compression: Compression = Compression.NONE
    on_confirm: OnConfirm | None = None
    on_error: OnError | None = None

    def __post_init__(self) -> None:
        check_reference("reference", self.reference)
        check_whole("max_unconfirmed", self.max_unconfirmed, 1)
        check_whole("max_unconfirmed_bytes", self.max_unconfirmed_bytes, 1)
        if self.confirm_timeout is not None:
            check_seconds("confirm_timeout", self.confirm_timeout)
        check_whole("sub_entry_size", self.sub_entry_size, 0, 65535)
        for name in ("filter_value", "on_confirm", "on_error"):
            check_callable(name, getattr(self, name))
        if not isinstance(self.compression, Compression):
            raise ConfigurationError(
                f"compression={shown(self.compression)}: expected one of "
                f"{', '.join(map(str, Compression.__members__))}, such as Compression.GZIP"
            )
        if self.sub_entry_size and self.filter_value is not None:
            raise ConfigurationError("filter_value= and sub_entry_size= cannot be used together")
        if self.compression and not self.sub_entry_size:
            raise ConfigurationError(
                "compression= needs sub_entry_size=, the number of messages compressed together"
            )
        sub_entry(0, [b""], self.compression)  # raises NotSupported if the codec is not installed
