"""What doctor says of brokers: their features, and clocks that differ."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flowstream.cli.diagnosis.broker import clock_skew, features
from flowstream.protocol import Key


def test_features_of_versions() -> None:
    (old,) = features({})
    assert old.result == "warn"
    found = {each.check: each.detail for each in features({Key.PUBLISH: 1, Key.STREAM_STATS: 1})}
    assert found["filtering"].startswith("no")
    assert found["stream statistics, single active consumers"] == "yes"


@pytest.mark.parametrize(("seconds", "result"), [(0, "ok"), (3, "ok"), (-60, "warn"), (9, "warn")])
def test_clocks(seconds: int, result: str) -> None:
    ours = 1_700_000_000.0
    found = clock_skew(datetime.fromtimestamp(ours + seconds, UTC), ours)
    assert found.result == result
    assert ("behind" in found.detail) == (seconds < -5)
