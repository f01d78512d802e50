"""Settings of connections are checked when they are made, and delay attempts at random."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream import Backoff
from flowstream.client.connecting.settings import RECONNECT, Settings
from flowstream.errors import ConfigurationError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heartbeat": -1}, "heartbeat"),
        ({"frame_max": 100}, "from 4096 to"),
        ({"frame_max": 1 << 31}, "from 4096 to"),
        ({"per_connection": 257}, "per_connection"),
        ({"node_attempts": 0}, "node_attempts"),
        ({"request_timeout": 0}, "request_timeout"),
        ({"recovery_timeout": -1.0}, "recovery_timeout"),
    ],
)
def test_what_cannot_work_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings(**options)


@pytest.mark.parametrize("options", [{"frame_max": 0}, {"heartbeat": 0}, {"per_connection": 1}])
def test_zero_means_without_where_it_may_be_given(options: dict[str, Any]) -> None:
    settings = Settings(**options)
    assert {name: getattr(settings, name) for name in options} == options


def test_connections_are_tried_again_at_different_times() -> None:
    first, later = (sorted(Settings().pause(attempt) for _ in range(500)) for attempt in (1, 99))
    assert (0.05 <= first[0] < 0.07, 0.13 < first[-1] <= 0.15) == (True, True)
    assert (1.66 <= later[0] < 2.0, 4.7 < later[-1] <= 5.0) == (True, True)
    assert Settings().backoff == RECONNECT


@pytest.mark.parametrize("backoff", [Backoff(0), Backoff(2, maximum=1)])
def test_a_connection_is_not_tried_again_without_a_pause(backoff: Backoff) -> None:
    with pytest.raises(ConfigurationError, match=r"backoff=Backoff.*takes a pause"):
        Settings(backoff=backoff)
