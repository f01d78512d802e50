"""How many cores a process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstream.cli.workers.cores import usable_cores


@pytest.mark.parametrize(
    ("text", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2)]
)
def test_the_limit_of_a_container_counts(
    text: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert usable_cores(quota) == expected


@pytest.mark.parametrize("text", ["max 100000", "", "1 0"])
def test_without_a_limit_affinity_counts(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert usable_cores(quota) == 2
    assert usable_cores(tmp_path / "none") == 2
