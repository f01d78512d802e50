"""The arguments of a new stream."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowstream.client.stream_options import StreamOptions
from tests.client.timing import virtual_time


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
    assert StreamOptions(**nothing).arguments() == {}
    some = nothing | {"max_age": timedelta(hours=2), "max_length_bytes": 5, "filter_size_bytes": 32}
    assert StreamOptions(**some).arguments() == {
        "max-age": "7200s",
        "max-length-bytes": "5",
        "stream-filter-size-bytes": "32",
    }
    assert StreamOptions(**nothing | {"max_age": "7D"}).arguments() == {"max-age": "7D"}


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()
