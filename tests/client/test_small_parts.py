"""The small pure parts: ids, backoff, credit, options, routing, offsets, tracking, signals."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client import AutoTracking, Backoff, Compression, hash_index, hash_route
from flowstream.client.admin import stream_arguments
from flowstream.client.connecting.ids import Ids
from flowstream.client.connecting.signals import Signal
from flowstream.client.consuming.offsets import offset_spec
from flowstream.client.consuming.tracking import Tracker
from flowstream.client.options import PublisherOptions
from flowstream.errors import ConfigurationError, NotSupported
from flowstream.protocol import OffsetSpec


def test_ids_rotate_and_are_not_given_out_again_at_once() -> None:
    ids: Ids[str] = Ids()
    assert [ids.add("x") for _ in range(3)] == [0, 1, 2]
    ids.remove(1)
    assert ids.add("y") == 3
    assert ids.get(1) is None
    assert ids.get(3) == "y"


def test_ids_run_out_at_the_limit() -> None:
    ids: Ids[int] = Ids(256)
    assert sorted(ids.add(n) for n in range(256)) == list(range(256))
    assert ids.full
    with pytest.raises(IndexError):
        ids.add(0)
    ids.remove(7)
    assert ids.add(1000) == 7
    assert len(ids) == 256


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(1, 5), st.randoms())
def test_delays_stay_between_half_and_all_of_a_ceiling(
    attempt: int, initial: float, factor: float, chance: random.Random
) -> None:
    backoff = Backoff(initial, initial * 50, factor)
    delay = backoff.delay(attempt, chance.uniform)
    assert initial / 2 <= delay <= initial * 50
    assert Backoff().delay(1, lambda low, high: low) == 0.05
    assert Backoff().delay(100, lambda low, high: high) == 5.0


def test_a_missing_codec_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from flowstream.protocol import compression

    compression.codec_of.cache_clear()
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(NotSupported, match="cramjam"):
        PublisherOptions(sub_batch=10, compression=Compression.ZSTD)
    PublisherOptions(sub_batch=10, compression=Compression.GZIP)
    compression.codec_of.cache_clear()


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


def test_hash_routing_is_that_of_all_other_clients() -> None:
    """The vectors are those of the clients in other languages."""
    found = [hash_index(f"hello{n}", 3) + 1 for n in range(1, 11)]
    assert found == [2, 1, 2, 3, 1, 3, 1, 2, 1, 3]
    hashes = {
        "hello": 1321743225,
        "brave": 3825276426,
        "new": 2970740106,
        "world": 2453398188,
        "rabbit": 3591948756,
        "coders51": 1856831182,
        "": 3329588566,
        "é": 2922484690,
        "日本": 2230178032,
    }
    for key, value in hashes.items():
        for partitions in (1, 3, 7, 1000):
            assert hash_index(key, partitions) == value % partitions
    assert hash_route("hello1", ["a", "b", "c"]) == "b"


def test_offsets_as_applications_write_them() -> None:
    now = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert offset_spec("first") == OffsetSpec.first()
    assert offset_spec("last") == OffsetSpec.last()
    assert offset_spec("next") == OffsetSpec.next()
    assert offset_spec(5) == OffsetSpec.offset(5)
    assert offset_spec(now) == OffsetSpec.timestamp(1704110400000)
    assert offset_spec(timedelta(hours=1), now) == OffsetSpec.timestamp(1704106800000)
    assert offset_spec(timedelta.max, now) == OffsetSpec.timestamp(0)
    assert offset_spec(datetime.min.replace(tzinfo=UTC)) == OffsetSpec.timestamp(0)
    for wrong in ("end", -1, True, 1.5, None, 1 << 63, timedelta(hours=-1), timedelta.min):
        with pytest.raises(ConfigurationError, match="offset="):
            offset_spec(wrong)  # type: ignore[arg-type]


def test_the_tracker_stores_by_count_and_only_what_advanced() -> None:
    tracker = Tracker(AutoTracking(messages=10))
    assert tracker.due() is None
    assert tracker.processed(3, 4) is None
    assert tracker.processed(11, 8) == 11
    assert tracker.due() is None
    assert tracker.processed(12, 1) is None
    assert tracker.due() == 12
    assert tracker.unverified() == 12
    tracker.forget()
    assert tracker.unverified() is None


def test_the_manual_tracker_stores_what_it_is_told() -> None:
    tracker = Tracker("manual")
    assert tracker.processed(100, 100_000) is None
    assert tracker.unverified() is None
    tracker.stored = 0
    assert tracker.unverified() == 0


@pytest.mark.anyio
@pytest.mark.both_backends
async def test_a_signal_wakes_everybody_who_waits() -> None:
    signal = Signal()
    signal.notify()
    woken = []

    async def wait(name: str) -> None:
        await signal.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "a")
        group.start_soon(wait, "b")
        await anyio.wait_all_tasks_blocked()
        signal.notify()
    assert sorted(woken) == ["a", "b"]
