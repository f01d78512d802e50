"""Every error of flowstream, as one tree.

    FlowstreamError
    ├── ProtocolError                 bytes or frames that break the protocol
    │   └── LocalProtocolError        this side tried to send a command out of turn
    ├── ConfigurationError            an invalid declaration, option or address
    │   ├── UnsupportedPayloadType    payloads cannot be decoded to a handler's annotation
    │   ├── DuplicateName             two parts of one pipeline have the same name
    │   └── HandlerNotImported        worker processes cannot import the handler of their stage
    ├── ConnectionFailed              a usable connection to the address could not be made
    │   └── ConnectionClosed          the connection ended while it was in use
    ├── EnvironmentClosed             the environment was closed before or during its use
    ├── RequestTimeout                the server did not answer in time
    ├── ServerError                   the server answered with an error code (see SERVER_ERRORS)
    │   ├── StreamDoesNotExist, StreamAlreadyExists, StreamNotAvailable
    │   ├── SubscriptionIdExists, SubscriptionIdDoesNotExist, PublisherDoesNotExist
    │   ├── AuthenticationFailed
    │   │   ├── TokenUnavailable      no OAuth 2.0 token could be fetched to authenticate with
    │   │   ├── SaslMechanismNotSupported, SaslError, LoopbackOnly
    │   │   └── CannotChangeMechanism, CannotChangeUsername
    │   ├── VirtualHostAccessFailed, AccessRefused
    │   ├── UnknownFrame, FrameTooLarge, InternalServerError
    │   └── PreconditionFailed, NoOffset
    ├── NotSupported                  the server is too old, or an extra is not installed
    ├── PublishFailed                 a message was refused, or its confirm never came
    │   └── MessageTooLarge           the message does not fit into a frame
    ├── ChecksumMismatch              a chunk does not match its CRC-32
    ├── SinkFailed                    a sink could not write
    │   ├── SinkUnavailable           its database or directory could not be reached
    │   ├── StreamReplaced            it wrote messages of another stream with this name
    │   ├── OutcomeUnknown            nobody answered whether a batch was committed
    │   ├── SequenceLost              its target no longer knows what was published
    │   ├── RoutingChanged            its super stream has other partitions than before
    │   └── WrittenOutOfOrder         a message is too late to be written once
    ├── OffsetTruncated               retention removed messages before they were read
    ├── CommitNotVerified             a stored offset could not be read back
    ├── PayloadError                  a message body cannot be decoded to its declared type
    ├── HandlerTimeout                a handler did not return within its timeout
    ├── WorkerDied                    a worker process ended during a call
    ├── Halted                        a failure policy stopped the pipeline
    ├── StageFailed                   a part of a run failed permanently, such as by SystemExit
    ├── SourceFailed                  the source of a pipeline raised an exception
    ├── ThreadsExhausted              all worker threads hang in handlers
    ├── StoreFailed                   the embedded broker cannot write to its store
    └── DrainTimeout                  the drain did not finish before its deadline

Errors carry what a program needs as fields. Their text says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class FlowstreamError(Exception):
    """The base class of every error that this package raises on purpose."""


class ProtocolError(FlowstreamError):
    """The peer sent bytes or frames that the protocol does not allow.

    Fields: `code`, with which a server closes the connection (13 unknown frame, 14 frame too
    large); `preceding`, the valid commands that the same read contained before the bad frame.
    """

    code: int = 13
    preceding: Sequence[object] = ()

    def __init__(self, message: str = "", *, code: int | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class LocalProtocolError(ProtocolError):
    """This side tried to send a command that the connection's state does not allow."""


class ConfigurationError(FlowstreamError):
    """A declaration, option or address is invalid. The text names it and says what is expected."""


class UnsupportedPayloadType(ConfigurationError):
    """Message bodies cannot be decoded to the type that a handler's annotation names."""


class DuplicateName(ConfigurationError):
    """Two parts of one pipeline, such as batchers, have the same name."""


class HandlerNotImported(ConfigurationError):
    """The worker processes of a stage (`processes=True`) cannot import its handler: see
    `__cause__`. The run ends, and its messages stay unsettled."""


class ConnectionFailed(FlowstreamError):
    """A usable connection to the address could not be made.

    Field: `lost`, whether the broker had answered there before, so that it may come back.
    """

    lost: bool = False

    def __init__(self, message: str = "", *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class ConnectionClosed(ConnectionFailed):
    """The connection ended while it was in use.

    Field: `cause`, which says why: "broker" (the broker sent Close), "network", "heartbeat" (none
    arrived in time), "protocol", "handshake", "silent" (requests were not answered), "request"
    (this side closed it), or "" if the cause is unknown.
    """

    cause: str = ""

    def __init__(self, message: str = "", *, cause: str = "") -> None:
        super().__init__(message, lost=cause != "request")
        self.cause = cause


class EnvironmentClosed(FlowstreamError):
    """An environment was used after it was closed, or closed while it was in use.

    The text names the publisher, consumer or pipeline that used it. Open a new environment.
    """


class RequestTimeout(FlowstreamError):
    """The server did not answer a request within the timeout."""


class ServerError(FlowstreamError):
    """The server answered with an error code.

    Fields: `code` (the protocol's number), `stream` and `reference` if the request had them.
    """

    code: int = 0

    def __init__(
        self,
        message: str = "",
        *,
        code: int | None = None,
        stream: str | None = None,
        reference: str | None = None,
    ) -> None:
        super().__init__(message or type(self).__doc__)
        if code is not None:
            self.code = code
        self.stream = stream
        self.reference = reference


class StreamDoesNotExist(ServerError):
    """The stream does not exist; create it first (`flowstream streams create NAME`)."""

    code = 2


class SubscriptionIdExists(ServerError):
    """The subscription id is already in use on this connection."""

    code = 3


class SubscriptionIdDoesNotExist(ServerError):
    """The subscription id is not known on this connection."""

    code = 4


class StreamAlreadyExists(ServerError):
    """A stream of this name already exists."""

    code = 5


class StreamNotAvailable(ServerError):
    """The stream has no available leader or replica at the moment; try again."""

    code = 6


class AuthenticationFailed(ServerError):
    """The server refused the user name or password."""

    code = 8


class TokenUnavailable(AuthenticationFailed):
    """An OAuth 2.0 token could not be fetched from the identity provider."""

    code = 0


class SaslMechanismNotSupported(AuthenticationFailed):
    """The server does not offer this SASL mechanism."""

    code = 7


class SaslError(AuthenticationFailed):
    """The SASL exchange failed."""

    code = 9


class LoopbackOnly(AuthenticationFailed):
    """This user may only connect over loopback; create another user for remote use."""

    code = 11


class VirtualHostAccessFailed(ServerError):
    """The virtual host does not exist, or this user has no access to it."""

    code = 12


class UnknownFrame(ServerError):
    """The server is too old to know this command."""

    code = 13


class FrameTooLarge(ServerError):
    """The frame is larger than the size both sides agreed on."""

    code = 14


class InternalServerError(ServerError):
    """The server had an internal error; see its log."""

    code = 15


class AccessRefused(ServerError):
    """This user has no permission for the operation."""

    code = 16


class PreconditionFailed(ServerError):
    """The request conflicts with what exists, such as a stream with other arguments."""

    code = 17


class PublisherDoesNotExist(ServerError):
    """The publisher id is not declared on this connection."""

    code = 18


class NoOffset(ServerError):
    """No offset is stored under this reference."""

    code = 19


class CannotChangeMechanism(AuthenticationFailed):
    """A live connection cannot change its SASL mechanism."""

    code = 20


class CannotChangeUsername(AuthenticationFailed):
    """A live connection cannot change its user name."""

    code = 21


SERVER_ERRORS: dict[int, type[ServerError]] = {
    cls.code: cls
    for cls in (
        StreamDoesNotExist,
        SubscriptionIdExists,
        SubscriptionIdDoesNotExist,
        StreamAlreadyExists,
        StreamNotAvailable,
        SaslMechanismNotSupported,
        AuthenticationFailed,
        SaslError,
        LoopbackOnly,
        VirtualHostAccessFailed,
        UnknownFrame,
        FrameTooLarge,
        InternalServerError,
        AccessRefused,
        PreconditionFailed,
        PublisherDoesNotExist,
        NoOffset,
        CannotChangeMechanism,
        CannotChangeUsername,
    )
}
"""The protocol's response codes and their classes; code 10 is a SASL challenge, not an error."""


def server_error(
    code: int, message: str = "", *, stream: str | None = None, reference: str | None = None
) -> ServerError:
    """The exception for a response code; an unknown code gives a plain `ServerError`."""
    cls = SERVER_ERRORS.get(code, ServerError)
    return cls(message, code=code, stream=stream, reference=reference)


class NotSupported(FlowstreamError):
    """The server is too old, or an extra is not installed. The text names what is needed."""


class PublishFailed(FlowstreamError):
    """A message was refused by the server, or was not confirmed.

    Fields: `publishing_id`, `code` (0 if the server did not answer), `stream`.
    """

    def __init__(
        self,
        message: str,
        *,
        publishing_id: int | None = None,
        code: int = 0,
        stream: str | None = None,
    ) -> None:
        super().__init__(message)
        self.publishing_id = publishing_id
        self.code = code
        self.stream = stream


class MessageTooLarge(PublishFailed):
    """The message is larger than a frame of this connection; it was not sent."""


class ChecksumMismatch(FlowstreamError):
    """A chunk does not match its CRC-32: it was damaged in transit or on disk."""


class SinkFailed(FlowstreamError):
    """A sink could not write: its database or directory could not be used, or kept failing."""


class SinkUnavailable(SinkFailed):
    """The database or directory of a sink could not be opened. Another run may find it."""


class StreamReplaced(SinkFailed):
    """A stream was deleted and created again, and a sink has stored offsets of the old one.

    No message is to blame, so no failure policy sees it: the run ends, and messages stay unsettled.
    """


class OutcomeUnknown(SinkFailed):
    """A database or file system was lost while it committed a batch, and has not come back.

    Its messages may be written. So no failure policy sees it: the run ends, and messages stay
    unsettled. The next run finds out, and writes each of them once.
    """


class SequenceLost(SinkFailed):
    """A stream no longer knows what a sink has published to it exactly once.

    It was deleted and created again, or the broker has forgotten the sink's publishing ids. No
    message is to blame, so no failure policy sees it: the run ends, and messages stay unsettled.
    """


class RoutingChanged(SinkFailed):
    """A super stream that a sink publishes to exactly once is routed to in another way.

    Its partitions, or the key, have changed while messages were in flight: they may be published
    in other partitions. No message is to blame, so no failure policy sees it: the run ends, and
    messages stay unsettled.
    """


class WrittenOutOfOrder(SinkFailed):
    """A message came to a sink that writes exactly once after later ones were written.

    Only `message.settle()` makes that possible: what is settled is not waited for.
    """


class OffsetTruncated(FlowstreamError):
    """Retention removed messages before they were read.

    Fields: `stream`, `stored` (the last offset before the removed ones, stored or read), `first`
    (the first offset that the stream still has).
    """

    def __init__(self, message: str, *, stream: str, stored: int, first: int) -> None:
        super().__init__(message)
        self.stream = stream
        self.stored = stored
        self.first = first


class CommitNotVerified(FlowstreamError):
    """A stored offset could not be read back; after a restart messages may be processed again."""


class PayloadError(FlowstreamError):
    """A message body cannot be decoded to the declared payload type."""


class HandlerTimeout(FlowstreamError):
    """A handler did not return within its timeout; its messages failed."""


class WorkerDied(FlowstreamError):
    """A worker process (`processes=True`) ended during a call; the messages of the call failed.

    They are retried as the pipeline's `Retry` says. The text says how the process ended and what to
    do; signal 9 usually means that the kernel ran out of memory. Fields: `pid`; `code`, the exit
    code, or the negative number of the signal; None if the pipeline ended the process.
    """

    def __init__(self, message: str, *, pid: int, code: int | None) -> None:
        super().__init__(message)
        self.pid = pid
        self.code = code


class Halted(FlowstreamError):
    """A failure policy stopped the pipeline; the stored offset is before the failed message.

    Fields: `pipeline`; `stream`, `offset` and `reason` of the first message that failed;
    `messages`, the (stream, offset) of every message that `run(discard=...)` must name to continue
    without them.
    """

    def __init__(
        self, message: str, *, pipeline: str, stream: str, offset: int, reason: str
    ) -> None:
        super().__init__(message)
        self.pipeline = pipeline
        self.stream = stream
        self.offset = offset
        self.reason = reason
        self.messages: tuple[tuple[str, int], ...] = ((stream, offset),)


class StageFailed(FlowstreamError):
    """A run ended because a part of it failed permanently: an exception such as SystemExit escaped
    (see `__cause__`), or messages were left that no stage had."""


class SourceFailed(FlowstreamError):
    """The source of a pipeline raised an exception (`__cause__`). Messages that it delivered before
    are processed before the run ends."""


class ThreadsExhausted(FlowstreamError):
    """All worker threads of a pipeline hang in handlers that exceeded their timeout."""


class StoreFailed(FlowstreamError):
    """The embedded broker cannot write to its store. Confirmed messages are not affected."""


class DrainTimeout(FlowstreamError):
    """The drain did not finish before its deadline; the next run repeats the unsettled messages."""
