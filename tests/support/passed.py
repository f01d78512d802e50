"""Leaves out of a run what has passed in one just before: CI runs `make test`, then the rest.

`--record-passed FILE` writes down which tests passed, and `--leave-out FILE` leaves them out and
says how many. Tests of files that use Hypothesis run again: the second run draws more examples.
"""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from tests.support.report import is_worker

DRAWING = {"given", "hypothesis", "settings", "st", "stateful", "strategies"}
"""Names in a test file that uses Hypothesis."""

_passed: list[str] = []
_LEFT_OUT: pytest.StashKey[set[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flowstream")
    group.addoption("--record-passed", metavar="FILE", help="write down which tests passed")
    group.addoption("--leave-out", metavar="FILE", help="leave out what passed in that run")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("leave_out")
    config.stash[_LEFT_OUT] = set(Path(file).read_text().splitlines()) if file else set()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    passed = config.stash[_LEFT_OUT]
    left_out = [item for item in items if item.nodeid in passed and not draws(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = {id(item) for item in left_out}
        items[:] = [item for item in items if id(item) not in gone]


def draws(item: pytest.Item) -> bool:
    """Whether more examples may be drawn for the test than in the run before."""
    module, test = getattr(item, "module", None), getattr(item, "obj", None)
    return (
        module is None
        or not DRAWING.isdisjoint(vars(module))
        or hypothesis.is_hypothesis_test(test)
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _passed.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("record_passed")
    if file and not is_worker(session.config):
        Path(file).write_text("".join(f"{nodeid}\n" for nodeid in _passed))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if count := len(config.stash[_LEFT_OUT]):
        terminalreporter.section("passed before")
        terminalreporter.write_line(
            f"{count} tests passed in the run that wrote {config.getoption('leave_out')}; of them "
            "only those in files that use Hypothesis ran again"
        )
