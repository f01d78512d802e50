"""What doctor says of this machine."""

from __future__ import annotations

import resource

import pytest

from flowstream.cli.diagnosis.machine import open_files


@pytest.mark.parametrize(
    ("limit", "result"), [(256, "warn"), (20_000, "ok"), (resource.RLIM_INFINITY, "ok")]
)
def test_open_files(limit: int, result: str) -> None:
    assert open_files(limit).result == result
