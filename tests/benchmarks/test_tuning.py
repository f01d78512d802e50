"""docs/tuning.md and its curves are made from what was recorded."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks.tuning.__main__ import IMAGES, OPTIONS, PAGE, RECORDED
from tests.benchmarks.tuning.page import PICTURES, drawn, figures, rounded, written


def test_the_page_has_the_recorded_tables_and_their_curves() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert written(PAGE.read_text(), recorded, OPTIONS) == PAGE.read_text()
    for picture in PICTURES:
        drawing = IMAGES / f"tuning-{picture.name}.svg"
        assert drawing.read_text() == drawn(recorded, picture)
        assert f"images/{drawing.name}" in PAGE.read_text()


def test_figures_of_a_point() -> None:
    series = {
        "1": {"seconds": 2.0, "messages": 100, "cpu": 0.01},
        "10": {"seconds": 1.0, "messages": 100, "cpu": 0.002},
    }
    assert figures(series, "share") == [(1, 50.0), (10, 100.0)]
    assert figures(series, "rate") == [(1, 50.0), (10, 100.0)]
    assert [round(value) for _, value in figures(series, "cpu")] == [100, 20]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.04, "0.0"), (9.96, "10.0"), (12.4, "12"), (123.4, "123"), (12_345, "12,300")],
)
def test_no_more_digits_than_would_be_measured_again(value: float, shown: str) -> None:
    assert rounded(value) == shown
