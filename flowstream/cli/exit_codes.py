"""Every exit code of the command line, and the error that each belongs to.

A code never changes its meaning. `flowstream exit-codes` prints the table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import cast

from flowstream import errors
from flowstream.texts import is_a, leaves


class ExitCode(IntEnum):
    """How a command ended. `MEANINGS` says it in words."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    DECLARATION = 3
    CONNECTION = 4
    AUTHENTICATION = 5
    STREAM_MISSING = 6
    HALTED = 7
    DRAIN_TIMEOUT = 8
    TRUNCATED = 9
    MODULE_MISSING = 10
    MODULE_BROKEN = 11
    NO_PIPELINE = 12
    PAYLOAD_TYPE = 14
    DUPLICATE_NAME = 15
    VIRTUAL_HOST = 16
    PERMISSION = 17
    SERVER = 18
    PUBLISH = 19
    INPUT = 20
    NOT_SUPPORTED = 21
    TIMEOUT = 22
    NOT_VERIFIED = 23
    CHECK_FAILED = 24
    THREADS = 25
    SOURCE_FAILED = 26
    SINK_FAILED = 27
    WORKER = 28
    LAG = 30
    IN_USE = 31
    NOT_REPLAYED = 32
    OUTPUT = 33
    FORCED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "success; a stopped run has drained and committed, and failed messages were "
    "dead-lettered or discarded as declared; also Ctrl-C for commands that have no other end "
    "(broker, tail, top, publish --loop)",
    ExitCode.UNEXPECTED: "an unexpected error; --debug shows the traceback",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.DECLARATION: "a declaration, option or address is invalid",
    ExitCode.CONNECTION: "no broker answers at the address, or the connection was lost",
    ExitCode.AUTHENTICATION: "the broker refused the user name or password",
    ExitCode.STREAM_MISSING: "the stream does not exist, or was deleted while it was being read",
    ExitCode.HALTED: "a failure policy stopped the pipeline; the committed offset is before the "
    "failed message",
    ExitCode.DRAIN_TIMEOUT: "the drain took longer than drain_timeout; unsettled messages are "
    "delivered again",
    ExitCode.TRUNCATED: "retention deleted messages before they were handled",
    ExitCode.MODULE_MISSING: "the module does not exist",
    ExitCode.MODULE_BROKEN: "importing the module raised an exception, or called sys.exit",
    ExitCode.NO_PIPELINE: "the module declares no pipeline, or none with that name",
    ExitCode.PAYLOAD_TYPE: "a handler's annotation is not a supported payload type",
    ExitCode.DUPLICATE_NAME: "two pipelines, or two parts of a pipeline, have the same name",
    ExitCode.VIRTUAL_HOST: "the virtual host does not exist, or the user has no access to it",
    ExitCode.PERMISSION: "the user has no permission for the operation",
    ExitCode.SERVER: "the broker answered with another error code",
    ExitCode.PUBLISH: "the broker refused a message, or did not confirm it",
    ExitCode.INPUT: "an input file is missing, or does not match its format",
    ExitCode.NOT_SUPPORTED: "the broker is too old, or an extra is not installed",
    ExitCode.TIMEOUT: "the broker did not answer in time",
    ExitCode.NOT_VERIFIED: "a stored offset could not be read back",
    ExitCode.CHECK_FAILED: "a check found a problem",
    ExitCode.THREADS: "handlers block all worker threads of a run; unsettled messages are "
    "delivered again",
    ExitCode.SOURCE_FAILED: "a pipeline's source (a generator, a file or a custom producer) "
    "raised an error",
    ExitCode.SINK_FAILED: "a sink cannot use its database or directory",
    ExitCode.WORKER: "a worker of run --workers died too often, before it was ready or while it "
    "drained, or could not be replaced; or there is no such run",
    ExitCode.LAG: "a reader lags more than --fail-above allows",
    ExitCode.IN_USE: "refused because a running pipeline would be disturbed; --force overrides",
    ExitCode.NOT_REPLAYED: "dead letters were not replayed: their original messages are gone or "
    "too large",
    ExitCode.OUTPUT: "the result could not be written: standard output is closed, or its disk is "
    "full",
    ExitCode.FORCED: "interrupted: Ctrl-C, the answer no, or, for a run, a second signal before it "
    "was drained",
}


class CommandError(errors.FlowstreamError):
    """A command cannot do what it was asked to do. The message is one line, with the remedy."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# The first class that matches decides.
_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.FORCED),
    (errors.Halted, ExitCode.HALTED),
    (errors.DrainTimeout, ExitCode.DRAIN_TIMEOUT),
    (errors.OffsetTruncated, ExitCode.TRUNCATED),
    (errors.CommitNotVerified, ExitCode.NOT_VERIFIED),
    (errors.UnsupportedPayloadType, ExitCode.PAYLOAD_TYPE),
    (errors.DuplicateName, ExitCode.DUPLICATE_NAME),
    (errors.ConfigurationError, ExitCode.DECLARATION),
    (errors.ConnectionFailed, ExitCode.CONNECTION),
    (errors.EnvironmentClosed, ExitCode.CONNECTION),
    (errors.RequestTimeout, ExitCode.TIMEOUT),
    (errors.StreamDoesNotExist, ExitCode.STREAM_MISSING),
    (errors.AuthenticationFailed, ExitCode.AUTHENTICATION),
    (errors.VirtualHostAccessFailed, ExitCode.VIRTUAL_HOST),
    (errors.AccessRefused, ExitCode.PERMISSION),
    (errors.ServerError, ExitCode.SERVER),
    (errors.PublishFailed, ExitCode.PUBLISH),
    (errors.NotSupported, ExitCode.NOT_SUPPORTED),
    (errors.ThreadsExhausted, ExitCode.THREADS),
    (errors.SourceFailed, ExitCode.SOURCE_FAILED),
    (errors.SinkFailed, ExitCode.SINK_FAILED),
)


def exit_code(error: BaseException) -> ExitCode:
    """The exit code of a command that ended with this error."""
    if is_a(error, CommandError):
        return cast(CommandError, error).exit_code
    for cls, code in _CODES:
        if is_a(error, cls):
            return code
    return ExitCode.UNEXPECTED


def root_cause(error: BaseException) -> BaseException:
    """The error that explains a group of errors: the first known one, else the first."""
    found = list(leaves(error))
    return next((leaf for leaf in found if exit_code(leaf) != ExitCode.UNEXPECTED), found[0])
