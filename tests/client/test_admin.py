"""The arguments of a new stream."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flowstream.client.admin import stream_arguments


def test_the_arguments_of_a_stream() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "max_length_bytes",
            "max_age",
            "max_segment_size_bytes",
            "filter_size_bytes",
            "initial_cluster_size",
            "leader_locator",
        )
    )
    assert stream_arguments(**nothing) == {}
    some = nothing | {"max_age": timedelta(hours=2), "max_length_bytes": 5, "filter_size_bytes": 32}
    assert stream_arguments(**some) == {
        "max-age": "7200s",
        "max-length-bytes": "5",
        "stream-filter-size-bytes": "32",
    }
    assert stream_arguments(**nothing | {"max_age": "7D"}) == {"max-age": "7D"}
