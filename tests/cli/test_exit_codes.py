"""Every error has an exit code, and every exit code a meaning."""

from __future__ import annotations

import pytest

from flowstream import errors
from flowstream.cli.exit_codes import MEANINGS, CommandError, ExitCode, exit_code, root_cause


def test_every_code_is_described() -> None:
    assert list(MEANINGS) == list(ExitCode)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("x", ExitCode.INPUT), ExitCode.INPUT),
        (errors.ConnectionClosed("x"), ExitCode.CONNECTION),
        (errors.StreamDoesNotExist("x"), ExitCode.STREAM_MISSING),
        (errors.LoopbackOnly("x"), ExitCode.AUTHENTICATION),
        (errors.StreamAlreadyExists("x"), ExitCode.SERVER),
        (errors.DuplicateName("x"), ExitCode.DUPLICATE_NAME),
        (errors.ConfigurationError("x"), ExitCode.DECLARATION),
        (errors.OffsetTruncated("x", stream="s", stored=1, first=2), ExitCode.TRUNCATED),
        (errors.ThreadsExhausted("x"), ExitCode.THREADS),
        (errors.SourceFailed("x"), ExitCode.SOURCE_FAILED),
        (ZeroDivisionError(), ExitCode.UNEXPECTED),
    ],
)
def test_errors_map_to_codes(error: BaseException, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_a_group_is_explained_by_its_first_known_error() -> None:
    known = errors.DrainTimeout("late")
    group = BaseExceptionGroup(
        "a", [ValueError("b"), ExceptionGroup("c", [RuntimeError("d"), known])]
    )
    assert root_cause(group) is known
    assert isinstance(root_cause(ExceptionGroup("a", [ValueError("b")])), ValueError)
