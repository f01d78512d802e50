"""Every error of flowstream, as one tree.

    FlowstreamError
    ├── ProtocolError                 bytes or frames that break the protocol
    │   └── LocalProtocolError        ... on our own side: a command out of turn
    ├── ConfigurationError            a declaration, option or address that cannot work
    │   ├── UnsupportedPayloadType    a handler's annotation is no type payloads decode to
    │   └── DuplicateName             two parts of one pipeline have the same name
    ├── ConnectionFailed              nothing (or nobody we trust) answers at the address
    │   └── ConnectionClosed          the connection ended while it was in use
    ├── EnvironmentClosed             the environment was closed, before or while it was used
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
    │   └── MessageTooLarge           it can never fit into a frame
    ├── ChecksumMismatch              a chunk does not match its CRC-32
    ├── OffsetTruncated               retention removed messages before they were read
    ├── CommitNotVerified             a stored offset could not be read back
    ├── PayloadError                  a message body does not decode to its declared type
    ├── HandlerTimeout                a handler did not return inside its timeout
    ├── WorkerDied                    a worker process ended with messages in its hands
    ├── Halted                        a failure policy stopped the pipeline
    ├── StageFailed                   a stage crashed more often than it may be restarted
    ├── SourceFailed                  the source of a pipeline raised an exception
    ├── ThreadsExhausted              all worker threads hang in handlers
    ├── StoreFailed                   the embedded broker cannot write to its store
    └── DrainTimeout                  the drain did not end inside its deadline

Errors carry what a program needs as fields and say the remedy in their text.
"""

from __future__ import annotations

from collections.abc import Sequence


class FlowstreamError(Exception):
    """The root: `except FlowstreamError` catches whatever this package raises on purpose."""


class ProtocolError(FlowstreamError):
    """The peer sent bytes or frames that the protocol does not allow.

    Fields: `code`, what a server closes the connection with (13 unknown frame, 14 frame too large);
    `preceding`, the commands of the same read that came, whole and legal, before the bad frame.
    """

    code: int = 13
    preceding: Sequence[object] = ()

    def __init__(self, message: str = "", *, code: int | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class LocalProtocolError(ProtocolError):
    """A command was about to be sent that the connection's state does not allow."""


class ConfigurationError(FlowstreamError):
    """A declaration, option or address that cannot work; the text names it and the remedy."""


class UnsupportedPayloadType(ConfigurationError):
    """A handler's annotation names a type that message bodies cannot be decoded to."""


class DuplicateName(ConfigurationError):
    """Two parts of one pipeline (batchers, processors ...) have the same name."""


class ConnectionFailed(FlowstreamError):
    """No usable connection could be made to the address."""


class ConnectionClosed(ConnectionFailed):
    """The connection ended while it was in use: by the peer, the network or a missed heartbeat.

    Field: `cause`, which of them: "broker" (it said goodbye), "network", "heartbeat", "protocol",
    "handshake", "silent" (requests were not answered) or "request" (it was closed on this side);
    "" where that is not known.
    """

    cause: str = ""

    def __init__(self, message: str = "", *, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


class EnvironmentClosed(FlowstreamError):
    """An environment was used after it was closed, or closed while somebody used it.

    The text names who: a publisher, consumer or pipeline. Open a new environment.
    """


class RequestTimeout(FlowstreamError):
    """The server did not answer a request in time."""


class ServerError(FlowstreamError):
    """The server answered with an error code.

    Fields: `code` (the protocol's number), `stream` and `reference` where the request had them.
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
    """The subscription id is in use on this connection."""

    code = 3


class SubscriptionIdDoesNotExist(ServerError):
    """The subscription id is not known on this connection."""

    code = 4


class StreamAlreadyExists(ServerError):
    """A stream of this name exists."""

    code = 5


class StreamNotAvailable(ServerError):
    """The stream has no leader or replica to serve it now; try again."""

    code = 6


class AuthenticationFailed(ServerError):
    """The server refused the user name or password."""

    code = 8


class TokenUnavailable(AuthenticationFailed):
    """No token could be fetched: the identity provider is away, or refuses."""

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
    """The virtual host does not exist, or this user may not use it."""

    code = 12


class UnknownFrame(ServerError):
    """The server does not know this command; it is older than the command."""

    code = 13


class FrameTooLarge(ServerError):
    """The frame is larger than the size both sides agreed on."""

    code = 14


class InternalServerError(ServerError):
    """The server failed inside; its log tells why."""

    code = 15


class AccessRefused(ServerError):
    """This user has no permission for the operation."""

    code = 16


class PreconditionFailed(ServerError):
    """The request does not fit what exists (such as other arguments of an existing stream)."""

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
    """The server is too old for this, or an extra is not installed; the text names which."""


class PublishFailed(FlowstreamError):
    """A message was refused by the server, or its confirm never came.

    Fields: `publishing_id`, `code` (0 where no answer came), `stream`.
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
    """The message can never fit into a frame of this connection; it was not sent."""


class ChecksumMismatch(FlowstreamError):
    """A chunk does not match its CRC-32: it was damaged on its way or on disk."""


class OffsetTruncated(FlowstreamError):
    """Retention removed messages before they were read, while the reader was away or as it ran.

    Fields: `stream`, `stored` (the last offset before them: stored, or read), `first` (the first
    offset behind them).
    """

    def __init__(self, message: str, *, stream: str, stored: int, first: int) -> None:
        super().__init__(message)
        self.stream = stream
        self.stored = stored
        self.first = first


class CommitNotVerified(FlowstreamError):
    """An offset was stored but could not be read back; it may be repeated after a restart."""


class PayloadError(FlowstreamError):
    """A message body does not decode to the declared payload type."""


class HandlerTimeout(FlowstreamError):
    """A handler did not return inside its timeout; its messages failed."""


class WorkerDied(FlowstreamError):
    """A worker process (`processes=True`) ended in the middle of a call; its messages failed.

    They are tried again as the pipeline's `Retry` says. The text tells how it ended and what to do:
    a kernel that runs out of memory kills with signal 9. Fields: `pid`; `code`, the exit code, or
    the number of the signal with a minus before it; None where it did not end by itself.
    """

    def __init__(self, message: str, *, pid: int, code: int | None) -> None:
        super().__init__(message)
        self.pid = pid
        self.code = code


class Halted(FlowstreamError):
    """A failure policy stopped the pipeline; the offset stays before the failed message.

    Fields: `pipeline`, `stream`, `offset` of the first message that failed, `reason`; `messages`,
    the (stream, offset) of every message that `run(discard=...)` has to name to go on without them.
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
    """A stage, or what a run opens or closes, was broken for good by something that is no
    Exception, such as SystemExit; `__cause__` is it."""


class SourceFailed(FlowstreamError):
    """The source of a pipeline raised an exception, which is `__cause__`; what it had given is
    handled before the run ends."""


class ThreadsExhausted(FlowstreamError):
    """Every worker thread that a pipeline may have hangs in a handler that was given up."""


class StoreFailed(FlowstreamError):
    """The embedded broker cannot write to its store; what it confirmed is still there."""


class DrainTimeout(FlowstreamError):
    """The drain did not end inside its deadline; what was unsettled is replayed next time."""
