"""Some of the entries of a Publish frame, chosen by index."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.protocol import Entries, simple_entry, sub_entry, sub_entry_bytes


@given(
    ids=st.lists(st.integers(0, 99), min_size=1, max_size=10),
    chosen=st.lists(st.integers(0, 9), min_size=1),
)
def test_select(ids: list[int], chosen: list[int]) -> None:
    indices = [index for index in chosen if index < len(ids)] or [0]
    filters = [None if each % 2 else str(each) for each in ids]
    part = Entries(ids, [simple_entry(b"%d" % each) for each in ids], len(ids), [], filters).select(
        indices
    )
    assert part.ids == [ids[index] for index in indices]
    assert part.filters == [filters[index] for index in indices]
    assert part.entries == [simple_entry(b"%d" % each) for each in part.ids]
    assert (part.records, part.batches) == (len(indices), [])


def test_selected_sub_entries_count_all_their_messages() -> None:
    batch = sub_entry_bytes(sub_entry(5, [b"a", b"b", b"c"]))
    entries = Entries([4, 5, 6], [simple_entry(b"x"), batch, simple_entry(b"y")], 5, [1])
    part = entries.select([1, 2])
    assert (part.ids, part.entries) == ([5, 6], entries.entries[1:])
    assert (part.records, part.batches) == (4, [0])


def test_no_indices_select_nothing() -> None:
    part = Entries([4], [simple_entry(b"x")], 1, [], ["a"]).select([])
    assert (part.ids, part.entries, part.records, part.batches) == ([], [], 0, [])
