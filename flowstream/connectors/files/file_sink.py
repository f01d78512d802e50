"""FileSink: batches as files that appear whole or not at all, each message once."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread

from flowstream.connectors.done_ranges import Range
from flowstream.connectors.files.commit_log import CommitLog, Incoming, Part
from flowstream.connectors.files.formats import Encoder, Rows, ndjson, parquet
from flowstream.connectors.files.names import folder_of
from flowstream.connectors.files.partitions import PARTITION_BY, PartitionBy, folder_by, values_of
from flowstream.connectors.files.stores import (
    Store,
    check_store,
    open_store,
    shown_directory,
)
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, RunContext, Sink, is_schema, require_pyarrow
from flowstream.schema import NAME, Rule, make, takes
from flowstream.texts import plural

_log = logging.getLogger("flowstream.connectors")

DIRECTORY = Rule(
    "a path or a URL that fsspec knows, such as s3://bucket/orders",
    lambda value: isinstance(value, str | os.PathLike) and bool(os.fspath(value)),
)
SCHEMA = Rule("a pyarrow.Schema, a model, a dataclass or a msgspec Struct", is_schema)


@dataclass(frozen=True)
class FileSinkArguments:
    """What `FileSink(...)` takes."""

    directory: Annotated[str | os.PathLike[str], DIRECTORY, "where the files are"]
    _: KW_ONLY
    format: Annotated[Literal["parquet", "ndjson"], "the kind of the files"] = "parquet"
    partition_by: Annotated[
        PartitionBy | None, PARTITION_BY, "the field, or the function, that decides the folder"
    ] = None
    schema: Annotated[
        Any | None, SCHEMA, "of Parquet: the columns; None: those of the data's class, or values"
    ] = None
    origin: Annotated[bool, "add the columns `_stream` and `_offset`"] = False
    reference: Annotated[
        str | None, NAME, "the name that done offsets are kept under; None: the pipeline's name"
    ] = None


class FileSink(Sink):
    """Writes each batch as a file of its stream, or a file for each partition, each message once.

    A batch settles when its files are complete and durable. Then an entry of the manifest lists
    them, and says which offsets are done: they are left out when they come again, after a crash or
    a retry, in whatever batches. `complete_files` lists what readers may read. The batch decides
    when a file is complete: `size`, `max_bytes` and `batch_timeout` of `pipeline.sink(...)`.

    `partition_by="day"` writes into folders such as `day=2026-11-29`, as Hive does. A function gets
    the message and returns the folders as a dict, such as `{"day": ..., "region": ...}`.

    The data become rows: models, dataclasses, msgspec Structs, dicts, and bytes that hold JSON. A
    message that cannot be a row, or has no partition, fails alone.

    Of a source that does not store offsets, such as an iterable, each run is written anew.
    """

    @takes(FileSinkArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(FileSinkArguments, arguments, values, "FileSink")
        if options.format == "parquet":
            require_pyarrow()
        elif options.schema is not None:
            raise ConfigurationError(
                'FileSink > schema: format="ndjson" has no schema; use format="parquet"'
            )
        self.directory: str = os.fspath(options.directory)
        self.format: str = options.format
        self.partition_by: PartitionBy | None = options.partition_by
        self.schema: Any = options.schema
        self.origin: bool = options.origin
        self.reference: str | None = options.reference

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        reference = self.reference or context.pipeline
        await self._claim(context, reference)
        store = open_store(self.directory)
        await anyio.to_thread.run_sync(check_store, store)
        yield _Writer(self, store, reference).write

    async def _claim(self, context: RunContext, reference: str) -> None:
        """Two sinks with one record of what is done would take messages from each other."""
        claimed = await context.shared("flowstream.connectors.files", _claims)
        key = (shown_directory(self.directory), reference)
        if key in claimed:
            raise ConfigurationError(
                f"FileSink > reference={reference!r}: another sink of the pipeline writes to "
                f"{key[0]} with it; give one of them another reference= or directory"
            )
        claimed.add(key)

    def __repr__(self) -> str:
        return f"FileSink({shown_directory(self.directory)!r}, format={self.format!r})"


@asynccontextmanager
async def _claims() -> AsyncIterator[set[Any]]:
    yield set()


class _Writer:
    """The sink in one run, with a log for each stream that messages came from."""

    def __init__(self, sink: FileSink, store: Store, reference: str) -> None:
        self._sink = sink
        self._store = store
        self._reference = reference
        self._encode: Encoder = ndjson if sink.format == "ndjson" else parquet(sink.schema)
        self._logs: dict[str, tuple[CommitLog, anyio.Lock]] = {}

    async def write(self, batch: Batch[Any]) -> None:
        """Return once every message of the batch is in a complete file, or has failed."""
        messages: Sequence[Any] = batch.messages if callable(self._sink.partition_by) else ()
        data = batch.data
        failed: dict[int, Exception] = {}
        for stream, part in _by_stream(batch).items():
            log, lock = self._log_of(stream, part.resumes)
            encode = _Encoding(self._sink, self._encode, stream, part, data, messages)
            incoming = Incoming(
                part.offsets, part.timestamps, part.settled, again=batch.attempt > 1
            )
            async with lock:
                left_out = await anyio.to_thread.run_sync(log.commit, incoming, encode)
            failed |= encode.failed
            if left_out:
                _log.info(
                    "%s: left out %s of %s that are in complete files already", self._sink,
                    plural(left_out, "message"), stream,
                    extra={"stream": stream, "reference": self._reference},
                )  # fmt: skip
        for index, error in failed.items():
            batch.messages[index].fail(error, retry=False)

    def _log_of(self, stream: str, resumes: bool) -> tuple[CommitLog, anyio.Lock]:
        if stream not in self._logs:
            log = CommitLog(self._store, self._reference, stream, resumes=resumes)
            self._logs[stream] = (log, anyio.Lock())
        return self._logs[stream]


@dataclass(slots=True)
class _Part:
    """The messages of a batch that are of one stream: their indexes in it, and the rest."""

    resumes: bool
    settled: Range | None = None
    indexes: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)


def _by_stream(batch: Batch[Any]) -> Mapping[str, _Part]:
    """The messages by stream: a file holds those of one."""
    parts: dict[str, _Part] = {}
    settled = batch.settled or {}
    for origin in batch.origins:
        if origin.stream not in parts:
            run = settled.get(origin.stream)
            done = (run.start, run.stop - 1) if run else None
            parts[origin.stream] = _Part(origin.resumes, done)
        part = parts[origin.stream]
        part.indexes += range(origin.start, origin.start + len(origin.offsets))
        part.offsets += origin.offsets
        part.timestamps += [origin.timestamp] * len(origin.offsets)
    return parts


@dataclass(slots=True)
class _Encoding:
    """Makes the files of those messages of a part that are to be written. Called in a thread."""

    sink: FileSink
    encode: Encoder
    stream: str
    part: _Part
    data: list[Any]
    messages: Sequence[Any]
    failed: dict[int, Exception] = field(default_factory=dict)
    """The messages that are in no file, by their index in the batch."""

    def __call__(self, wanted: list[int]) -> list[Part]:
        self.failed = {}  # it is called again where another process was faster
        folders: dict[str, list[int]] = {}
        for index in wanted:
            place = self.part.indexes[index]
            try:
                folder = self._folder(place)
            except Exception as error:
                self.failed[place] = error
            else:
                folders.setdefault(folder, []).append(index)
        files = [self._file(folder, indexes) for folder, indexes in folders.items()]
        return [file for file in files if file.offsets]

    def _folder(self, place: int) -> str:
        by = self.sink.partition_by
        if by is None:
            return ""
        if isinstance(by, str):
            return folder_of(values_of(by, self.data[place]))
        return folder_by(by, self.messages[place])

    def _file(self, folder: str, indexes: list[int]) -> Part:
        by, part = self.sink.partition_by, self.part
        offsets = [part.offsets[index] for index in indexes]
        rows = Rows(
            [self.data[part.indexes[index]] for index in indexes],
            [(self.stream, offset) for offset in offsets] if self.sink.origin else None,
            [by] if isinstance(by, str) else [],  # its values are in the name of the folder
        )
        encoded = self.encode(rows)
        for at, error in encoded.errors.items():
            self.failed[part.indexes[indexes[at]]] = error
        held = [offset for at, offset in enumerate(offsets) if at not in encoded.errors]
        return Part(folder, held, encoded.content, self.sink.format)
