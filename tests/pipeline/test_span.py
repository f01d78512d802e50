"""The watermark equals a naive model, whatever is settled or held in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.span import HELD, SETTLED, Ledger, Span, Watermark

spans_of = st.lists(st.integers(0, 6), min_size=1, max_size=8)


def settle(span: Span, index: int) -> None:
    span.flags[index] = SETTLED
    span.remaining -= 1


def hold(span: Span, index: int) -> None:
    span.flags[index] = HELD
    span.held += 1
    span.remaining -= 1


def naive(delivered: list[tuple[int, bool]], skipped: list[int]) -> int | None:
    """The highest offset at and below which everything delivered is settled."""
    best = None
    for offset in sorted([o for o, _ in delivered] + skipped):
        if any(not done for o, done in delivered if o <= offset):
            break
        best = offset
    return best


@given(spans_of, st.data())
def test_watermark_equals_a_naive_model(sizes, data):
    mark, spans, base, skipped = Watermark(), [], data.draw(st.integers(0, 5)), []
    for size in sizes:
        gap = data.draw(st.integers(0, 2))
        base += gap
        if data.draw(st.booleans()):
            offsets, at = [], base
            for _ in range(size):
                at += data.draw(st.integers(1, 3))
                offsets.append(at)
            span = Span("lane", offsets[0] if offsets else base, size, offsets=offsets or None)
        else:
            span = Span("lane", base, size)
        mark.add(span)
        spans.append(span)
        if not size:
            skipped.append(span.last)
        base = span.last + 1
    places = [(span, index) for span in spans for index in range(span.count)]
    state = {(id(span), index): False for span, index in places}

    def check() -> None:
        delivered = [(span.offset(i), state[id(span), i]) for span, i in places]
        expected = naive(delivered, [s for s in skipped if s >= 0])
        assert (mark.value if mark.value is None or mark.value >= 0 else None) == expected
        unsettled = [offset for offset, done in delivered if not done]
        assert mark.barrier == (min(unsettled) if unsettled else None)

    check()
    for span, index in data.draw(st.permutations(places)):
        if data.draw(st.integers(0, 9)) == 0:
            hold(span, index)
        else:
            settle(span, index)
            state[id(span), index] = True
        check()


def test_settled_spans_are_forgotten():
    mark = Watermark()
    spans = [Span("lane", base, 10) for base in range(0, 100, 10)]
    for span in spans:
        mark.add(span)
    for span in spans:
        for index in range(10):
            settle(span, index)
    assert mark.value == 99
    assert len(mark) == 0


def test_a_held_message_keeps_the_watermark_before_it():
    mark, span = Watermark(), Span("lane", 10, 3)
    mark.add(span)
    settle(span, 0)
    settle(span, 2)
    hold(span, 1)
    assert mark.value == 10
    assert mark.open is span


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=20))
def test_two_lanes_of_one_stream_never_commit_past_either(messages):
    ledger = Ledger()
    marks = [ledger.open(), ledger.open()]
    for offset, (lane, done) in enumerate(messages):
        span = Span("lane", offset, 1)
        marks[lane].add(span)
        if done:
            settle(span, 0)
    exact = naive([(o, done) for o, (_, done) in enumerate(messages)], [])
    value = ledger.value()
    assert value is None or (exact is not None and value <= exact)
    if all(done for _, done in messages):
        assert value == exact


def test_due_only_when_advanced_and_not_behind_what_is_stored():
    ledger = Ledger()
    ledger.resume(5)
    mark = ledger.open()
    spans = [Span("lane", offset, 1) for offset in (6, 7)]
    for span in spans:
        mark.add(span)
    assert ledger.due() is None
    settle(spans[0], 0)
    assert ledger.due() == 6
    ledger.store(6)
    assert ledger.due() is None


@pytest.mark.parametrize(
    ("found", "committed"),
    [((), None), ((-1,), -1), ((0,), 0), ((-1, 0), 0), ((0, -1), 0), ((7, 5), 7)],
)
def test_what_was_found_stored_is_committed_and_not_of_this_run(found, committed):
    ledger = Ledger()
    for offset in found:
        ledger.resume(offset)
    assert (ledger.committed, ledger.advanced) == (committed, False)
    ledger.store(9)
    assert (ledger.committed, ledger.advanced) == (9, True)


def test_a_fenced_lane_commits_nothing():
    ledger = Ledger()
    mark, span = ledger.open(), Span("lane", 0, 1)
    mark.add(span)
    settle(span, 0)
    ledger.forget(mark)
    assert ledger.fenced
    assert ledger.due() is None
