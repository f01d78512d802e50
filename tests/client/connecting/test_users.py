"""Ids of publishers and subscriptions on a connection."""

from __future__ import annotations

import pytest

from flowstream.client.connecting.users import IdAllocator


def test_ids_rotate_and_are_not_given_out_again_at_once() -> None:
    ids: IdAllocator[str] = IdAllocator()
    assert [ids.add("x") for _ in range(3)] == [0, 1, 2]
    ids.remove(1)
    assert ids.add("y") == 3
    assert ids.get(1) is None
    assert ids.get(3) == "y"


def test_ids_run_out_at_the_limit() -> None:
    ids: IdAllocator[int] = IdAllocator(256)
    assert sorted(ids.add(n) for n in range(256)) == list(range(256))
    assert ids.full
    with pytest.raises(IndexError):
        ids.add(0)
    ids.remove(7)
    assert ids.add(1000) == 7
    assert len(ids) == 256
