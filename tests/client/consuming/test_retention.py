"""When a reader is warned that retention is about to overtake it."""

from __future__ import annotations

from flowstream.client.consuming.retention import Distance, Headroom


def test_a_reader_is_warned_once_before_and_once_when_it_is_overtaken() -> None:
    headroom = Headroom()
    assert headroom.looked(0, 100, 5000) is None
    assert headroom.looked(500, 700, 6000) is Distance.CLOSE
    assert headroom.looked(500, 800, 6000) is None
    assert headroom.looked(1000, 850, 6000) is Distance.BEHIND
    assert headroom.looked(1000, 5000, 6000) is Distance.FAR
    assert headroom.looked(5900, 6100, 6100) is None  # nothing is behind it
