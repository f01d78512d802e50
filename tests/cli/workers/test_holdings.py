"""Whether all partitions are read again after a move."""

from __future__ import annotations

from typing import Any

from flowstream.cli.workers.holdings import UNCHANGED, Held, Holdings, held_in


def held(active: str, known: str = "abc") -> Held:
    return Held(frozenset(active), frozenset(known))


def test_what_a_snapshot_says() -> None:
    def stream(name: str, active: bool) -> dict[str, Any]:
        return {"stream": name, "active": active}

    pipeline = {"elsewhere": ["c"], "streams": [stream("a", True), stream("b", False)]}
    assert held_in({"pipelines": [pipeline]}) == held("a")


def test_it_is_settled_as_soon_as_every_partition_is_read_here() -> None:
    holdings = Holdings()
    assert not holdings.settled({"1": held("a"), "2": held("b")}, 0.0)
    assert holdings.settled({"1": held("a"), "2": held("bc")}, 1.0)


def test_partitions_that_another_machine_reads_do_not_hold_up() -> None:
    holdings = Holdings()
    workers = {"1": held("a"), "2": held("b")}
    assert not holdings.settled(workers, 0.0)
    assert not holdings.settled(workers, UNCHANGED - 1)
    assert holdings.settled(workers, UNCHANGED)
    assert not holdings.settled({"1": held("a")}, UNCHANGED + 1)


def test_without_a_worker_nothing_is_settled() -> None:
    assert not Holdings().settled({}, 100.0)
