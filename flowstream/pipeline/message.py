"""A message: what a handler sees of it, and what a handler may decide about it.

A message is cheap: its origin is `(delivery, index)`, and everything that most messages never need
is in one attribute, `_extra`, which is None for them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, cast

from flowstream.errors import (
    EnvironmentClosed,
    HandlerNotImported,
    OutcomeUnknown,
    RoutingChanged,
    SequenceLost,
    StreamReplaced,
)
from flowstream.pipeline.delivery import Delivery
from flowstream.texts import (
    beginning,
    folded,
    is_a,
    reason_of,
    shown,
    text_of,
    traceback_of,
    type_name,
    without_passwords,
)

T = TypeVar("T")
D = TypeVar("D")
"""The data of a new message: pyright infers it, and not T, which is that of the class."""

BLAMELESS = (
    EnvironmentClosed,
    HandlerNotImported,
    OutcomeUnknown,
    RoutingChanged,
    SequenceLost,
    StreamReplaced,
)
"""Errors that no message caused: they end the run, and leave its messages unsettled."""
KNOWN, KNOWN_LENGTH = 256, 100
"""How many reasons are remembered as text, up to which length."""
DEPTH = 10
"""How many causes of causes are checked."""


class Codec(Protocol):
    """Reads delivered bodies: the payload, and the sections around it.

    `payload` is bytes, or a value if the body holds a value instead of bytes; `plain` converts such
    a value to Python's own types. `body` and `bodies` raise if there are no bytes.
    """

    def body(self, raw: bytes, /) -> bytes: ...
    def bodies(self, raws: list[bytes], /) -> list[bytes]: ...
    def payload(self, raw: bytes, /) -> Any: ...
    def plain(self, value: Any, /) -> Any: ...
    def properties(self, raw: bytes, /) -> Mapping[str, Any]: ...
    def application_properties(self, raw: bytes, /) -> Mapping[str, Any]: ...
    def message_annotations(self, raw: bytes, /) -> Mapping[Any, Any]: ...


def ends_the_run(error: BaseException | None) -> bool:
    """Whether no message caused the error: it, or one of its causes, is one of `BLAMELESS`."""
    for _ in range(DEPTH):
        if error is None or any(is_a(error, kind) for kind in BLAMELESS):
            return error is not None
        error = vars(BaseException)["__cause__"].__get__(error)  # a property of its class could lie
    return False


class Failure:
    """Why a message failed: `phase` is decode, prepare, process, batch, sink or commit.

    `error` is the exception (None after `message.fail`), `stage` the name of the processor or
    batcher, `attempts` the number of attempts so far, `retry` whether it may be tried again (never
    after an error that ends the run).
    """

    __slots__ = ("_kind", "attempts", "error", "message", "phase", "reason", "retry", "stage")

    def __init__(
        self,
        message: Message[Any],
        reason: str,
        *,
        error: BaseException | None = None,
        retry: bool = True,
    ) -> None:
        self.message: Message[Any] = message
        self.reason: str = without_passwords(reason)
        self.error: BaseException | None = error
        self.retry: bool = retry and not ends_the_run(error)
        self.phase: str = ""
        self.stage: str = ""
        self.attempts: int = 1
        self._kind: Any = None

    @property
    def error_name(self) -> str:
        """The exception's class; empty if a handler called `message.fail`."""
        return "" if self.error is None else type_name(self.error)

    @property
    def kind(self) -> str:
        """The exception's class. After `message.fail` it is the reason without its numbers
        and ids, so that failures of the same kind can be counted together."""
        return self.error_name or folded(beginning(self.reason))

    def traceback(self, limit: int = 8192) -> str:
        """The traceback as text, its last `limit` characters; empty without an exception."""
        return "" if self.error is None else traceback_of(self.error, limit)

    def __repr__(self) -> str:
        where = f"{self.message.stream}@{self.message.offset}"
        return f"<Failure {where} {self.phase} attempts={self.attempts} {self.reason!r}>"


class Joint:
    """A message that went to several batchers. It settles when the last of its clones is done."""

    __slots__ = ("dropped", "origin", "outcome", "pending")

    def __init__(self, origin: Message[Any], pending: int) -> None:
        self.origin: Message[Any] = origin
        self.pending: int = pending
        self.dropped: str | None = None
        self.outcome: str = "ok"


class Extra:
    """What only few messages have: decisions of a handler, an attempt, a failure."""

    __slots__ = (
        "ack",
        "attempt",
        "dropped",
        "early",
        "failure",
        "flush",
        "joint",
        "key",
        "routed",
        "routes",
    )

    def __init__(self) -> None:
        self.attempt: int = 1
        self.failure: Failure | None = None
        self.dropped: str | None = None
        self.routed: bool = False  # by the handler that has it now
        self.routes: tuple[str, ...] = ()
        self.key: Hashable = None
        self.flush: bool = False
        self.early: bool = False
        self.joint: Joint | None = None
        self.ack: dict[str, Any] | None = None


class Message(Generic[T]):
    """A message of a stream: `data` is the decoded payload, `raw` the body as it was delivered.

    Handlers get messages; they do not make them. `Message.new` makes one for a handler's test.
    """

    __slots__ = ("_delivery", "_extra", "_hash", "_index", "_order", "data", "raw")

    _hash: int
    """The number that chooses the partition, if the batcher has a partition_by of its own."""
    _order: Any
    """The order (deciders/queues.py) that the message is part of, where keys are kept in order."""

    def __init__(self, delivery: Delivery, index: int, data: T, raw: bytes) -> None:
        self._delivery = delivery
        self._index = index
        self.data: T = data
        self.raw: bytes = raw
        self._extra: Extra | None = None

    @classmethod
    def new(
        cls,
        data: D,
        *,
        raw: bytes = b"",
        stream: str = "",
        offset: int = 0,
        timestamp: int = 0,
    ) -> Message[D]:
        """A message without a pipeline, to call a handler with in a test."""
        return Message(Delivery(Detached(stream), offset, 1, timestamp=timestamp), 0, data, raw)

    # -- origin

    @property
    def stream(self) -> str:
        stream: str = self._delivery.partition.stream
        return stream

    @property
    def offset(self) -> int:
        return self._delivery.offset(self._index)

    @property
    def timestamp(self) -> int:
        """When the broker wrote the message's chunk: milliseconds since the epoch; 0: unknown."""
        return self._delivery.timestamp

    @property
    def body(self) -> bytes:
        """The payload's bytes: an AMQP 1.0 message's data section, otherwise `raw`.

        Raises ProtocolError if an AMQP message holds a map, a list, a number or another value
        instead of bytes; such a value is in `data`.
        """
        codec = self._delivery.partition.codec
        return self.raw if codec is None else codec.body(self.raw)

    @property
    def is_object(self) -> bool:
        """Whether the source sent the data as an object instead of a body: then `raw` is empty."""
        return self._delivery.objects is not None and not self.raw

    @property
    def properties(self) -> Mapping[str, Any]:
        """The AMQP 1.0 properties by name (such as message_id); empty for a plain body."""
        codec = self._delivery.partition.codec
        return {} if codec is None else codec.properties(self.raw)

    @property
    def application_properties(self) -> Mapping[str, Any]:
        """The AMQP 1.0 application properties (headers); empty for a plain body."""
        codec = self._delivery.partition.codec
        return {} if codec is None else codec.application_properties(self.raw)

    @property
    def message_annotations(self) -> Mapping[Any, Any]:
        """The AMQP 1.0 message annotations, such as the `x-routing-key` of what was published to
        RabbitMQ by AMQP; empty for a plain body."""
        codec = self._delivery.partition.codec
        return {} if codec is None else codec.message_annotations(self.raw)

    @property
    def attempt(self) -> int:
        """1 at the first attempt of the current stage, 2 at the first retry, and so on."""
        return 1 if self._extra is None else self._extra.attempt

    # -- what a handler decided

    @property
    def settled_early(self) -> bool:
        """Whether `settle` was called."""
        return self._extra is not None and self._extra.early

    @property
    def key(self) -> Hashable:
        """The batch key given to `to`, or None."""
        return None if self._extra is None else self._extra.key

    @property
    def batchers(self) -> tuple[str, ...]:
        """The batchers given to `to`; empty means the default one."""
        return () if self._extra is None else self._extra.routes

    @property
    def failed(self) -> str | None:
        """The reason given to `fail` in this attempt, or None."""
        extra = self._extra
        return None if extra is None or extra.failure is None else extra.failure.reason

    @property
    def dropped(self) -> str | None:
        """The reason given to `drop`, or None."""
        return None if self._extra is None else self._extra.dropped

    # -- what a handler may decide

    def fail(self, reason: object = "failed", *, retry: bool = True) -> None:
        """Fail the message once the handler returns: it is retried, then the policy decides.

        `retry=False` sends it to the policy at once, because another attempt would not help.
        """
        error = cast(BaseException, reason) if is_a(reason, BaseException) else None
        text = _reason(reason, "failed")
        self._more().failure = Failure(self, text, error=error, retry=retry)

    def drop(self, reason: object = "dropped") -> None:
        """Filter the message out: it goes to no batcher and settles as dropped."""
        self._more().dropped = _reason(reason, "dropped")

    def to(self, *batchers: str, key: Hashable = None, flush: bool = False) -> None:
        """Route the message to one or more batchers; it settles when all of them are done.

        `key` keeps batches apart (a batch has one key, and batches of one key are never handled
        at the same time); `flush` closes the batch with this message. Only a processor can route:
        in a batch handler, the message fails.
        """
        hash(key)  # raises here, where the handler can be named
        try:
            one = len(batchers) == 1 and type(batchers[0]) is str
            routes = batchers if one else tuple(dict.fromkeys(batchers))
        except TypeError:
            raise TypeError(
                f"message.to takes names, such as message.to('eu', 'audit'), not {shown(batchers)}"
            ) from None
        extra = self._more()
        extra.routed = True
        extra.routes = routes or extra.routes
        extra.key = key
        extra.flush = flush

    def settle(self) -> None:
        """Settle the message now, before the pipeline has finished with it.

        Whatever happens to it afterwards, a later run does not handle it again.
        """
        extra = self._more()
        if not extra.early:
            extra.early = True
            self._delivery.partition.settle_early(self)

    def configure_ack(self, **options: Any) -> None:
        """Set `options` for the producer's Acknowledger, which reads them as `ack_options`."""
        extra = self._more()
        extra.ack = {**(extra.ack or {}), **options}

    @property
    def ack_options(self) -> Mapping[str, Any]:
        """The options given to `configure_ack`."""
        return {} if self._extra is None or self._extra.ack is None else self._extra.ack

    def _more(self) -> Extra:
        if self._extra is None:
            self._extra = Extra()
            self._delivery.touched = True
        return self._extra

    def _clone(
        self,
        *,
        data: Any,
        attempt: int = 1,
        decided: bool = False,
        joint: Joint | None = None,
    ) -> Message[Any]:
        """Another object for the same message of the stream: for another attempt, or batcher.

        An early settling and the options of the acknowledger belong to the message, so they are
        copied. With `decided`, the decisions of the processor (key, flush, routes) are copied, too.
        A failure is never copied.
        """
        clone = Message(self._delivery, self._index, data, self.raw)
        for name in ("_hash", "_order"):
            if hasattr(self, name):
                setattr(clone, name, getattr(self, name))
        extra, own = clone._more(), self._extra
        extra.attempt = attempt
        extra.joint = joint
        if own is not None:
            extra.early, extra.ack = own.early, own.ack
            if decided:
                extra.key, extra.flush, extra.routes = own.key, own.flush, own.routes
        return clone

    def __reduce__(self) -> Any:
        """A message is pickled without its pipeline."""
        partition = self._delivery.partition
        where = (
            partition.stream, self.offset, self.timestamp, partition.codec, self.is_object,
        )  # fmt: skip
        return _arrived, (self.data, self.raw, where, self.attempt, self.key)

    def __repr__(self) -> str:
        return f"<Message {self.stream}@{self.offset} {shown(self.data)}>"


def _reason(reason: object, default: str) -> str:
    """The reason as text; the default for an empty one, such as `str(error)` of many errors."""
    if type(reason) is str:
        made = _text_of_known if len(reason) <= KNOWN_LENGTH else _text_of
        return made(reason) or default
    if is_a(reason, BaseException):
        return reason_of(cast(BaseException, reason))
    return text_of(reason)


def _text_of(reason: str) -> str:
    return text_of(reason) if reason.strip() else ""


_text_of_known = lru_cache(KNOWN)(_text_of)
"""Filters drop most of their messages for the same few reasons."""


class Detached:
    """The partition of a message that belongs to no pipeline."""

    __slots__ = ("codec", "stream", "tracker")

    resumes = False

    def __init__(self, stream: str) -> None:
        self.stream: str = stream
        self.codec: Codec | None = None
        self.tracker: None = None

    def settle_early(self, message: Message[Any]) -> None:
        """Does nothing: there is no acknowledger."""


def _arrived(
    data: Any, raw: bytes, where: tuple[str, int, int, Any, bool], attempt: int, key: Hashable
) -> Message[Any]:
    """A message that was unpickled in a worker process."""
    stream, offset, timestamp, codec, is_object = where
    message = Message.new(data, raw=raw, stream=stream, offset=offset, timestamp=timestamp)
    message._delivery.partition.codec = codec
    message._delivery.objects = [data] if is_object else None
    if attempt > 1 or key is not None:
        extra = message._more()
        extra.attempt, extra.key = attempt, key
    return message
