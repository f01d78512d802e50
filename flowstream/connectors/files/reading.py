"""What is complete in a directory of FileSink: the files that the manifest lists."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flowstream.connectors.files.manifest import Entry
from flowstream.connectors.files.names import MANIFEST
from flowstream.connectors.files.stores import Store, open_store


def complete_files(
    directory: str | os.PathLike[str], *, reference: str | None = None, stream: str | None = None
) -> list[str]:
    """The paths (or URLs) of all complete files, in the order of their commits for each stream.

    `reference` and `stream` select those of one pipeline or stream. Files that a crash has left
    are not among them. pyarrow reads the list with `pyarrow.dataset.dataset(...)`.
    """
    store = open_store(os.fspath(directory))
    return [
        store.url(file.path)
        for entry in _entries(store)
        if reference in {None, entry.reference} and stream in {None, entry.stream}
        for file in entry.files
    ]


def _entries(store: Store) -> Iterator[Entry]:
    """Every entry of the manifest. Their names sort by number."""
    references = [name for name in store.names(MANIFEST) if not name.startswith("_")]
    for reference in sorted(references):
        for stream in sorted(store.names(f"{MANIFEST}/{reference}")):
            log = f"{MANIFEST}/{reference}/{stream}/log"
            for segment in sorted(store.names(log)):
                for name in sorted(store.names(f"{log}/{segment}")):
                    path = f"{log}/{segment}/{name}"
                    yield Entry.decoded(path, store.read(path))
