"""Every option of a publisher, written once (see flowstream/schema.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal, TypeAlias

from flowstream.errors import ConfigurationError, PublishFailed
from flowstream.protocol import Compression, sub_entry
from flowstream.schema import NAME, SECONDS, a, check, whole

OnConfirm: TypeAlias = Callable[[Sequence[int]], None]
OnError: TypeAlias = Callable[[Sequence[int], PublishFailed], None]
KeyOf: TypeAlias = Callable[[bytes], str]
"""Makes the routing key of a body."""
Routing: TypeAlias = Literal["hash", "key"]

COMPRESSION = a(
    Compression, f"one of {', '.join(Compression.__members__)}, such as Compression.GZIP"
)


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Options that a sink has, too."""

    max_unconfirmed: Annotated[
        int, whole(1, unit="messages"), "unconfirmed messages at which sending waits"
    ] = 10_000
    filter_value: Annotated[
        Callable[[bytes], str | None] | None, "the value that the broker filters a body by"
    ] = None


@dataclass(frozen=True, kw_only=True)
class PublisherOptions(WindowOptions):
    """The options of a publisher.

    With `sub_entry_size` up to so many messages share one entry, with one publishing id and one
    `compression`. `on_confirm` is called with the publishing ids that were confirmed, `on_error`
    with those that failed and the error. Without `on_error` the error is raised by `flush`.
    """

    reference: Annotated[
        str | None, NAME, "the name under which the broker deduplicates publishing ids"
    ] = None
    require_sequence: Annotated[
        bool,
        "end with SequenceLost if the stream has forgotten confirmed publishing ids after a loss",
    ] = False
    max_unconfirmed_bytes: Annotated[
        int, whole(1, unit="bytes"), "unconfirmed bytes at which sending waits"
    ] = 64 << 20
    confirm_timeout: Annotated[
        float | None,
        SECONDS,
        "seconds until an unconfirmed message fails; None: never",
    ] = 30.0
    sub_entry_size: Annotated[
        int, whole(0, 65_535, unit="messages"), "messages in a sub-entry; 0: no sub-entries"
    ] = 0
    compression: Annotated[Compression, COMPRESSION, "of sub-entries"] = Compression.NONE
    on_confirm: Annotated[
        OnConfirm | None, "called by the event loop with the ids that were confirmed"
    ] = None
    on_error: Annotated[OnError | None, "called with the ids that failed, and the error"] = None

    def __post_init__(self) -> None:
        check(self)
        if self.sub_entry_size and self.filter_value is not None:
            raise ConfigurationError(
                f"sub_entry_size={self.sub_entry_size}: it cannot be used with filter_value="
            )
        if self.require_sequence and self.reference is None:
            raise ConfigurationError("require_sequence=True: it needs reference=")
        if self.compression and not self.sub_entry_size:
            raise ConfigurationError(
                f"compression={self.compression.name}: it needs sub_entry_size=, the number of "
                "messages compressed together"
            )
        sub_entry(0, [b""], self.compression)  # raises NotSupported if the codec is not installed


@dataclass(frozen=True)
class PublisherArguments(PublisherOptions):
    """What `Environment.publisher` takes."""

    stream: Annotated[str, NAME, "the stream to publish to"]


@dataclass(frozen=True)
class SuperStreamPublisherArguments(PublisherOptions):
    """What `Environment.super_stream_publisher` takes."""

    super_stream: Annotated[str, NAME, "the super stream to publish to"]
    _: KW_ONLY
    key: Annotated[KeyOf | None, "makes the routing key of a body that is sent without one"] = None
    routing: Annotated[
        Routing, "by the hash of the key, or to the partitions that are bound with the key"
    ] = "hash"
    refresh: Annotated[float, SECONDS, "seconds between two looks at the partitions"] = 60.0
