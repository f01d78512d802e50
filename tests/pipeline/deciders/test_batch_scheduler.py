"""Batches with a partition or key in common go one by one, in order; others do not wait."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline import Batch, Message
from flowstream.pipeline.deciders.batch_scheduler import BatchScheduler

kinds = st.lists(
    st.tuples(st.none() | st.integers(0, 2), st.none() | st.sampled_from("ab")), max_size=25
)


def batch(number, partition, key):
    return Batch([Message.new(number)], partition=partition, key=key)


@given(kinds, st.booleans(), st.integers(1, 4), st.data())
def test_order_and_exclusion(kinds, serial, workers, data):
    scheduler = BatchScheduler(serial=serial)
    waiting = [batch(n, *kind) for n, kind in enumerate(kinds)]
    running, parked, handled = [], [], []

    def tokens(b):
        return (
            {("s",)}
            if serial
            else {t for t in (("p", b.partition), ("k", b.key)) if t[1] is not None}
        )

    while waiting or running or parked or scheduler.batches:
        moves = []
        if waiting:
            moves.append("put")
        if scheduler.ready and len(running) < workers:
            moves.append("take")
        if running:
            moves += ["done", "park"]
        if parked:
            moves.append("resume")
        assert moves, "stuck"
        move = data.draw(st.sampled_from(moves))
        if move == "put":
            scheduler.put(waiting.pop(0))
        elif move == "take":
            taken = scheduler.take()
            assert all(not tokens(taken) & tokens(other) for other in running)
            running.append(taken)
        elif move == "done":
            ended = running.pop(data.draw(st.integers(0, len(running) - 1)))
            scheduler.done(ended)
            handled.append(ended)
        elif move == "park":
            old = running.pop(data.draw(st.integers(0, len(running) - 1)))
            new = batch(old.messages[0].data, old.partition, old.key)
            scheduler.swap(old, new)
            parked.append(new)
        else:
            scheduler.resume(parked.pop(0))
    assert sorted(b.messages[0].data for b in handled) == list(range(len(kinds)))
    assert (scheduler.batches, scheduler.messages, scheduler.ready) == (0, 0, 0)
    lines = defaultdict(list)
    for b in handled:
        for token in tokens(b):
            lines[token].append(b.messages[0].data)
    assert all(line == sorted(line) for line in lines.values())


def test_what_shares_nothing_does_not_wait():
    scheduler = BatchScheduler(serial=False)
    for number, key in enumerate(["a", "a", "b", None]):
        scheduler.put(batch(number, None, key))
    assert [scheduler.take().messages[0].data for _ in range(3)] == [0, 2, 3]
    assert scheduler.take() is None
