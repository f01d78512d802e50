"""What readers may read: the files that the manifest lists, in the order of their commits."""

from __future__ import annotations

from pathlib import Path

from flowstream.connectors.commit_gate import CommitGate
from flowstream.connectors.done_ranges import DoneRanges
from flowstream.connectors.files.commit_log import CommitLog, Incoming, Part
from flowstream.connectors.files.reading import complete_files, written
from flowstream.connectors.files.stores import LocalStore


def commit(store: LocalStore, reference: str, stream: str, *offsets: int) -> None:
    def encode(wanted: list[int]) -> list[Part]:
        held = [offsets[index] for index in wanted]
        return [Part("", held, b"\n".join(b"%d" % offset for offset in held), "ndjson")]

    log = CommitLog(store, reference, stream)
    log.commit(Incoming(offsets, [0] * len(offsets)), encode, CommitGate())


def contents(paths: list[str]) -> list[str]:
    return [Path(path).read_text() for path in paths]


def test_complete_files_by_reference_and_stream(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    commit(store, "shop", "orders", 0, 1)
    commit(store, "shop", "orders", 2)
    commit(store, "shop", "refunds", 7)
    commit(store, "audit", "orders", 5)
    (tmp_path / "orders-left-by-a-crash.ndjson").write_text("9")
    assert contents(complete_files(tmp_path)) == ["5", "0\n1", "2", "7"]
    assert contents(complete_files(tmp_path, reference="shop")) == ["0\n1", "2", "7"]
    assert contents(complete_files(tmp_path, stream="orders")) == ["5", "0\n1", "2"]
    assert contents(complete_files(tmp_path, reference="shop", stream="refunds")) == ["7"]
    assert complete_files(tmp_path, reference="nothing") == []


def test_the_last_entry_says_what_is_written(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert written(store, "shop") is None
    commit(store, "shop", "orders", 0, 1)
    commit(store, "shop", "orders", 4)
    commit(store, "shop", "refunds", 7)
    assert written(store, "shop") == {
        "orders": DoneRanges([(0, 1), (4, 4)]),
        "refunds": DoneRanges([(7, 7)]),
    }
    assert written(store, "audit") == {}
