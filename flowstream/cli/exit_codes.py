"""Every exit code of the command line, in one table, and which error ends with which.

A code never changes its meaning. `describe()` is what `flowstream exit-codes` prints.
"""

from __future__ import annotations

from enum import IntEnum
from typing import cast

from flowstream import errors
from flowstream.texts import is_a, leaves


class ExitCode(IntEnum):
    """What a command's end means; the docstring table in `MEANINGS` is shown to users."""

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
    LAG = 30
    IN_USE = 31
    NOT_REPLAYED = 32
    FORCED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done; a run that was asked to stop has drained and committed, and what failed "
    "was dead-lettered or discarded as declared; also Ctrl-C where nothing else ends a command "
    "(broker, tail, top, publish --loop)",
    ExitCode.UNEXPECTED: "an error nobody foresaw; --debug shows the traceback",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.DECLARATION: "a declaration, option or address that cannot work",
    ExitCode.CONNECTION: "nothing answers at the broker's address, or the connection was lost",
    ExitCode.AUTHENTICATION: "the broker refused the user name or password",
    ExitCode.STREAM_MISSING: "the stream does not exist, or was deleted while it was read",
    ExitCode.HALTED: "a failure policy stopped the pipeline; the offset is before the message",
    ExitCode.DRAIN_TIMEOUT: "the drain took longer than its deadline; the rest is replayed",
    ExitCode.TRUNCATED: "retention removed messages before they were handled",
    ExitCode.MODULE_MISSING: "the module does not exist",
    ExitCode.MODULE_BROKEN: "the module raised an exception, or called sys.exit, while it was "
    "imported",
    ExitCode.NO_PIPELINE: "the module has no pipeline, or none of that name",
    ExitCode.PAYLOAD_TYPE: "a handler's annotation is no supported payload type",
    ExitCode.DUPLICATE_NAME: "two parts of a pipeline have one name",
    ExitCode.VIRTUAL_HOST: "the virtual host does not exist, or the user may not enter it",
    ExitCode.PERMISSION: "the user lacks a permission for the operation",
    ExitCode.SERVER: "the broker answered with another error",
    ExitCode.PUBLISH: "a message was refused by the broker, or never confirmed",
    ExitCode.INPUT: "an input file is missing, or not what its format says",
    ExitCode.NOT_SUPPORTED: "the broker is too old, or an extra is not installed",
    ExitCode.TIMEOUT: "the broker did not answer in time",
    ExitCode.NOT_VERIFIED: "an offset was stored but could not be read back",
    ExitCode.CHECK_FAILED: "a check found something that will not work",
    ExitCode.THREADS: "all worker threads of a run hang in handlers; the rest is replayed",
    ExitCode.SOURCE_FAILED: "a pipeline's source (a generator, file, own producer) raised an error",
    ExitCode.LAG: "a reader is further behind than --fail-above allows",
    ExitCode.IN_USE: "refused while a pipeline runs that it would disturb; --force insists",
    ExitCode.NOT_REPLAYED: "dead letters were not replayed: their originals are gone, or too large",
    ExitCode.FORCED: "ended by whoever runs it: Ctrl-C, an answer of no, or of a run a second "
    "signal before it was drained",
}


class CommandError(errors.FlowstreamError):
    """A command cannot do what it was asked; the text is one line with the remedy."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# Ordered: the first class that fits decides.
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
)


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for an error that ended a command."""
    if is_a(error, CommandError):
        return cast(CommandError, error).exit_code
    for cls, code in _CODES:
        if is_a(error, cls):
            return code
    return ExitCode.UNEXPECTED


def root_cause(error: BaseException) -> BaseException:
    """The one error that explains a group: the first known one, or the first of all."""
    found = list(leaves(error))
    return next((leaf for leaf in found if exit_code(leaf) != ExitCode.UNEXPECTED), found[0])
