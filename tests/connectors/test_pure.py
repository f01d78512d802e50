"""Where a producer starts, when the safety valve trips, and which broker is asked."""

from __future__ import annotations

import pytest

from flowstream import Message, Pipeline, StreamProducer
from flowstream.client import Environment
from flowstream.connectors.start import Start, where_to_start
from flowstream.connectors.valve import BLOCK, SafetyValve
from flowstream.errors import ConfigurationError, OffsetTruncated


def start(
    stored: int | None,
    first: int | None,
    *,
    asked: int = 0,
    skip: bool = False,
) -> Start:
    return where_to_start(
        "orders", "billing", stored=stored, asked=asked, first=first, skip_truncated=skip
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "first", "offset"), [(-1, 0, 0), (0, 0, 1), (4, 0, 5), (4, 5, 5), (4, None, 5)]
)
def test_it_starts_behind_the_stored_offset(stored, first, offset):
    assert start(stored, first, asked=9) == Start(offset, known=True)


@pytest.mark.parametrize(("asked", "first"), [(0, 0), (0, None), (7, 7), (7, None), (9, 2)])
def test_where_nothing_is_stored_it_starts_where_it_was_asked_to_and_stores_that(asked, first):
    found = start(None, first, asked=asked)
    assert found == Start(asked, known=False)
    assert found.settled == asked - 1


@pytest.mark.parametrize(("stored", "asked"), [(4, 0), (None, 5)])
def test_truncated_messages_are_an_error_that_says_how_many(stored, asked):
    with pytest.raises(OffsetTruncated, match="5 offsets were truncated") as caught:
        start(stored, 10, asked=asked)
    assert (caught.value.stored, caught.value.first) == (4, 10)
    assert "offset 5 of 'orders' is to be handled next" in str(caught.value)
    assert "flowstream offsets reset billing orders --to first" in str(caught.value)


def test_truncated_messages_can_be_skipped_and_are_counted_once():
    found = start(4, 10, skip=True)
    assert found == Start(10, known=False, lost=5)
    assert start(found.settled, 10, skip=True) == Start(10, known=True)


def test_the_valve_trips_at_more_than_the_ratio_of_a_block():
    valve = SafetyValve(0.5, None)
    limit = BLOCK // 2
    assert [valve.failed("s", n * 2) for n in range(limit)] == [None] * limit
    assert "max_ratio" in str(valve.failed("s", 1))
    assert valve.failed("s", BLOCK) is None
    assert valve.failed("other", 1) is None


def test_the_valve_trips_at_failures_in_a_row_in_whatever_order_they_come():
    valve = SafetyValve(None, 3)
    assert [valve.failed("s", n) for n in (7, 5, 9)] == [None] * 3
    assert valve.failed("s", 6) is None
    assert "5 messages in a row" in str(valve.failed("s", 8))


def test_a_valve_that_is_off_never_trips():
    valve = SafetyValve(None, None)
    assert all(valve.failed("s", n) is None for n in range(2000))


@pytest.mark.anyio
async def test_an_address_that_cannot_be_one_is_refused_and_never_taken_for_localhost(monkeypatch):
    pipeline = Pipeline("p", StreamProducer("s"))

    @pipeline.processor()
    async def handle(message: Message[bytes]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^url: it is empty"):
        await pipeline.run(url="")
    monkeypatch.setenv("FLOWSTREAM_URL", "")
    with pytest.raises(ConfigurationError, match=r"^FLOWSTREAM_URL: it is empty"):
        await pipeline.run()
    monkeypatch.setenv("FLOWSTREAM_URL", "rabbitmq-stream://me:sec/ret@host")
    with pytest.raises(ConfigurationError, match=r'^FLOWSTREAM_URL: percent-encode "/"'):
        await pipeline.run()
    with pytest.raises(ConfigurationError, match="url= and environment= exclude each other"):
        await pipeline.run(url="rabbitmq-stream://host", environment=Environment())
