"""What the process takes of the machine."""

from __future__ import annotations

import pytest

from flowstream.monitor.figures import HISTORY
from flowstream.monitor.usage import Usage, resident_memory


def test_the_processor_is_told_in_cores() -> None:
    usage = Usage()
    assert usage.describe()["cpu"] is None
    for second in range(4):
        usage.sample(100.0 + second, 50_000_000 + second, cpu=7.0 + 1.5 * second)
    shown = usage.describe()
    assert shown["cpu"] == pytest.approx(1.5)
    assert shown["memory"] == 50_000_003
    assert shown["history"]["at"] == [101.0, 102.0, 103.0]
    assert shown["history"]["cpu"] == pytest.approx([1.5, 1.5, 1.5])


def test_a_clock_that_does_not_move_breaks_nothing() -> None:
    usage = Usage()
    usage.sample(1.0, None, cpu=1.0)
    usage.sample(1.0, None, cpu=2.0)
    assert (usage.describe()["cpu"], usage.describe()["memory"]) == (0.0, None)


def test_it_is_bounded() -> None:
    usage = Usage()
    for second in range(HISTORY + 10):
        usage.sample(float(second), 1, cpu=0.0)
    assert len(usage.describe()["history"]["at"]) == HISTORY - 1


def test_the_system_tells_the_memory() -> None:
    memory = resident_memory()
    assert memory is None or memory > 5_000_000
