"""The unconfirmed log against a naive model: a dictionary of ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client.publishing.framing import encode_entry
from flowstream.client.publishing.send_buffer import SendBuffer
from flowstream.client.publishing.unconfirmed import Waiter
from flowstream.errors import ConfigurationError
from flowstream.protocol import Compression, Publish, PublishFiltered, decode

pytestmark = pytest.mark.anyio


def send_buffer(**options: Any) -> SendBuffer:
    defaults: dict[str, Any] = {"max_messages": 10_000, "max_bytes": 1 << 30, "frame_max": 4096}
    return SendBuffer("s", **defaults | options)


def sent(buffer: SendBuffer) -> list[tuple[int, bytes]]:
    """What would be written now, as (id, body)."""
    buffers: list[bytes] = []
    while buffer.fill(0, buffers, 1000, 0.0):
        pass
    found: list[tuple[int, bytes]] = []
    for frame in buffers:
        assert len(frame) - 4 <= buffer.frame_max
        command = decode(frame[4:])
        if isinstance(command, PublishFiltered):
            found += [(number, body) for number, _, body in command.messages]
        else:
            assert isinstance(command, Publish)
            found += command.messages  # type: ignore[arg-type]
    return found


steps = st.lists(
    st.one_of(
        st.tuples(st.just("one"), st.binary(max_size=20)),
        st.tuples(st.just("many"), st.lists(st.binary(max_size=500), min_size=1, max_size=40)),
        st.tuples(st.just("gaps"), st.lists(st.integers(1, 5), min_size=1, max_size=10)),
        st.tuples(st.just("filtered"), st.lists(st.text(max_size=5), min_size=1, max_size=5)),
        st.tuples(st.just("write"), st.none()),
        st.tuples(st.just("confirm"), st.randoms()),
        st.tuples(st.just("rewind"), st.none()),
        st.tuples(st.just("expire"), st.integers(0, 3)),
    ),
    max_size=40,
)


@given(steps)
def test_nothing_is_lost_repeated_or_reordered(steps: list[tuple[str, Any]]) -> None:
    buffer = send_buffer()
    model: dict[int, bytes] = {}
    accepted_at: dict[int, int] = {}
    written: set[int] = set()
    for now, (step, value) in enumerate(steps):
        before = buffer.next_id
        if step == "one":
            buffer.add(value, len(value) + 12, now)
            model[before] = value
        elif step == "many":
            for entry in buffer.pieces(value, None, None):
                buffer.accept(entry, now)
            model.update(enumerate(value, before))
        elif step == "gaps":
            ids = [before + sum(value[: i + 1]) for i in range(len(value))]
            [entry] = buffer.pieces([b"g"] * len(ids), ids, None)
            buffer.accept(entry, now)
            model.update(dict.fromkeys(ids, b"g"))
        elif step == "filtered":
            for entry in buffer.pieces([b"f"] * len(value), None, value):
                buffer.accept(entry, now)
            model.update(dict.fromkeys(range(before, before + len(value)), b"f"))
        elif step == "write":
            wrote = sent(buffer)
            fresh = [pair for pair in model.items() if pair[0] not in written]
            assert wrote == fresh
            written.update(number for number, _ in wrote)
        elif step == "confirm":
            chosen = [number for number in written if value.random() < 0.5]
            value.shuffle(chosen)
            assert buffer.log.settle([*chosen, 10**9]) == len(chosen)
            for number in chosen:
                del model[number]
            written.difference_update(chosen)
        elif step == "rewind":
            buffer.log.rewind()
            written.clear()
        else:
            # An entry that messages are added to one by one is as old as its first message.
            lost = buffer.expire(now - value)
            for number in lost:
                assert accepted_at[number] <= now
                del model[number]
            written.difference_update(lost)
        accepted_at.update(dict.fromkeys(range(before, buffer.next_id), now))
        assert buffer.messages == len(model)
        assert buffer.size >= sum(map(len, model.values()))
        assert buffer.log.settled_through(max(model, default=0)) == (not model)
    assert buffer.log.settle(list(model)) <= len(model)


def test_a_waiter_waits_for_all_of_its_ids_over_several_entries() -> None:
    buffer = send_buffer()
    waiter = Waiter(100)
    for entry in buffer.pieces([bytes(200)] * 100, None, None):
        buffer.accept(entry, 0.0, waiter)
    assert len(sent(buffer)) == 100
    buffer.log.settle(range(50, 101))
    assert not waiter.settled.is_set()
    assert buffer.log.fail([(7, 15), (8, 15)]) == []
    buffer.log.settle([*range(1, 7), *range(9, 50)])
    assert waiter.settled.is_set()
    assert waiter.failures == [(7, 15), (8, 15)]
    assert buffer.messages == buffer.size == 0


def test_failures_nobody_waits_for_are_given_back() -> None:
    buffer = send_buffer()
    buffer.add(b"a", 13, 0.0)
    sent(buffer)
    assert buffer.log.fail([(1, 16)]) == [(1, 16)]
    assert buffer.messages == 0


def test_what_expires_fails_its_waiter() -> None:
    buffer = send_buffer()
    waiter = Waiter(2)
    [entry] = buffer.pieces([b"a", b"b"], None, None)
    buffer.accept(entry, 5.0, waiter)
    assert buffer.expire(4.9) == []
    assert buffer.expire(5.0) == []
    assert waiter.failures == [(1, 0), (2, 0)]
    assert waiter.settled.is_set()


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=60),
    st.integers(1, 20),
    st.sampled_from(Compression),
)
def test_sub_entries_hold_every_message(
    bodies: list[bytes], size: int, compression: Compression
) -> None:
    buffer = send_buffer(sub_entry_size=size, compression=compression)
    for body in bodies[::2]:
        buffer.add(body, len(body) + 12, 0.0)
    for entry in buffer.pieces(bodies[1::2], None, None) if len(bodies) > 1 else ():
        buffer.accept(entry, 0.0)
    assert buffer.messages == len(bodies)
    buffers: list[bytes] = []
    buffer.fill(0, buffers, 1 << 20, 0.0)
    batches: list[Any] = []
    for frame in buffers:
        command = decode(frame[4:])
        assert isinstance(command, Publish)
        batches += command.messages
    assert sum(batch.records for batch in batches) == len(bodies)
    ids = [batch.publishing_id for batch in batches]
    assert ids == list(range(1, len(batches) + 1))
    assert buffer.log.settle(ids) == len(bodies)
    assert buffer.messages == buffer.size == 0


def test_a_frame_max_that_has_shrunk_splits_what_was_one_frame() -> None:
    buffer = send_buffer(frame_max=100_000)
    [entry] = buffer.pieces([bytes(100)] * 100, None, None)
    buffer.accept(entry, 0.0)
    assert len(encode_entry(0, entry, 100_000)) == 1
    frames = encode_entry(0, entry, 4096)
    assert len(frames) == 3
    assert max(map(len, frames)) <= 4096 + 4


@pytest.mark.parametrize("ids", [[-1], [3, 2], [1, 1], [1 << 64]])
def test_ids_that_cannot_be_are_refused(ids: list[int]) -> None:
    buffer = send_buffer()
    [entry] = buffer.pieces([b""] * len(ids), ids, None)
    with pytest.raises(ConfigurationError, match="publishing_id"):
        buffer.accept(entry, 0.0)
    assert buffer.messages == 0
