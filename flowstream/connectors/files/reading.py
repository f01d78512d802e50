"""The complete files in a directory of FileSink: those that the manifest lists.

Other programs put files of their own into any folder, such as .DS_Store or a partial copy. Only the
exact names of segments and entries count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from flowstream.connectors.done_ranges import DoneRanges
from flowstream.connectors.files.manifest import (
    Entry,
    entry_number,
    entry_path,
    segment_number,
)
from flowstream.connectors.files.names import MANIFEST, reference_folder
from flowstream.connectors.files.stores import Store, open_store


def complete_files(
    directory: str | os.PathLike[str], *, reference: str | None = None, stream: str | None = None
) -> list[str]:
    """The paths (or URLs) of all complete files, in the order of their commits for each stream.

    `reference` and `stream` select the files of one pipeline or stream. Files that a crash left
    behind are not included. pyarrow reads the list with `pyarrow.dataset.dataset(...)`.
    """
    store = open_store(os.fspath(directory))
    return [
        store.url(file.path)
        for entry in _entries(store)
        if reference in {None, entry.reference} and stream in {None, entry.stream}
        for file in entry.files
    ]


def _entries(store: Store) -> Iterator[Entry]:
    """All entries of the manifest, in the order of their numbers for each stream."""
    references = [name for name in store.names(MANIFEST) if not name.startswith("_")]
    for reference in sorted(references):
        for stream in sorted(store.names(f"{MANIFEST}/{reference}")):
            log = f"{MANIFEST}/{reference}/{stream}/log"
            for segment in _numbers(store, log, segment_number):
                for number in _numbers(store, f"{log}/{segment:09d}", entry_number):
                    path = entry_path(log, number)
                    yield Entry.decoded(path, store.read(path))


def written(store: Store, reference: str) -> dict[str, DoneRanges] | None:
    """The offsets that are done under a reference, by stream; None without a directory of files."""
    if not store.names(MANIFEST):
        return None
    folder = reference_folder(reference)
    found: dict[str, DoneRanges] = {}
    for name in sorted(store.names(folder)):
        segments = f"{folder}/{name}/log"
        last = last_sequence(store, segments)
        if last >= 0:
            path = entry_path(segments, last)
            entry = Entry.decoded(path, store.read(path))
            found |= {entry.stream: DoneRanges(entry.done)} if entry.done else {}
    return found


def last_sequence(store: Store, segments: str) -> int:
    """The number of the last entry of a log; -1 where there is none."""
    for segment in reversed(_numbers(store, segments, segment_number)):
        if found := _numbers(store, f"{segments}/{segment:09d}", entry_number):
            return found[-1]
    return -1


def _numbers(store: Store, folder: str, number_of: Callable[[str], int | None]) -> list[int]:
    """The numbers of what is in a folder, in order."""
    found = (number_of(name) for name in store.names(folder))
    return sorted(number for number in found if number is not None)
