"""Every failing check and condition has advice, and its runbook exists."""

from __future__ import annotations

from flowstream.monitor.advice import ADVICE, advice
from flowstream.monitor.health import PipelineHealth, readiness
from tests.documents import ROOT
from tests.monitor.figures import RUNNING


def test_every_check_says_what_to_do() -> None:
    assert {check.name for check in readiness([PipelineHealth("p", RUNNING)])} <= ADVICE.keys()


def test_every_runbook_that_is_named_is_written() -> None:
    written = (ROOT / "docs" / "operations.md").read_text()
    assert [heading for heading, _ in ADVICE.values() if f"### {heading}\n" not in written] == []


def test_there_is_no_advice_for_what_is_unknown() -> None:
    assert advice("") == {}
    assert advice("commits")["runbook"] == "runbooks#flowstreamnotcommitting"
