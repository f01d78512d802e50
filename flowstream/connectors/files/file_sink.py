"""FileSink: writes batches as files that are complete or absent, each message once."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread

from flowstream.checks import is_whole
from flowstream.connectors.commit_gate import CommitGate, OutcomeOpen, in_thread
from flowstream.connectors.done_ranges import CLOSE_WITHIN, DoneRanges, Range
from flowstream.connectors.files.commit_log import CommitLog, Incoming, Part
from flowstream.connectors.files.formats import Encoder, Rows, ndjson, parquet
from flowstream.connectors.files.names import folder_of
from flowstream.connectors.files.partitions import PARTITION_BY, PartitionBy, folder_by, values_of
from flowstream.connectors.files.reading import written
from flowstream.connectors.files.stores import (
    Store,
    check_store,
    open_store,
    same_directory,
    shown_directory,
)
from flowstream.errors import (
    ConfigurationError,
    FlowstreamError,
    OutcomeUnknown,
    SinkFailed,
    StreamReplaced,
)
from flowstream.pipeline import (
    EXACTLY_ONCE,
    Batch,
    Guarantee,
    Message,
    Rolling,
    RunContext,
    Sink,
    is_schema,
    require_pyarrow,
    thread_limiter,
)
from flowstream.schema import NAME, Rule, make, takes
from flowstream.texts import describe, interrupts, plural

_log = logging.getLogger("flowstream.connectors")

DIRECTORY = Rule(
    "a path or a URL that fsspec knows, such as s3://bucket/orders",
    lambda value: isinstance(value, str | os.PathLike) and bool(os.fspath(value)),
)
ROLL = Rule(
    "a whole number of at least 1 (bytes), or a timedelta of at least a second",
    lambda value: (
        is_whole(value, 1) or (isinstance(value, timedelta) and value >= timedelta(seconds=1))
    ),
)
SCHEMA = Rule("a pyarrow.Schema, a model, a dataclass or a msgspec Struct", is_schema)


@dataclass(frozen=True)
class FileSinkArguments:
    """What `FileSink(...)` takes."""

    directory: Annotated[str | os.PathLike[str], DIRECTORY, "where the files are"]
    _: KW_ONLY
    format: Annotated[Literal["parquet", "ndjson"], "the file format"] = "parquet"
    partition_by: Annotated[
        PartitionBy | None, PARTITION_BY, "the field, or the function, that decides the folder"
    ] = None
    roll: Annotated[
        int | timedelta | None,
        ROLL,
        "the size (bytes) or the time span of a file; None: a file for each batch",
    ] = None
    schema: Annotated[
        Any | None,
        SCHEMA,
        "the columns of Parquet files; None: from the class of the data, or its values",
    ] = None
    origin: Annotated[bool, "add the columns `_stream` and `_offset`"] = False
    reference: Annotated[
        str | None, NAME, "the name that done offsets are kept under; None: the pipeline's name"
    ] = None


class FileSink(Sink):
    """Writes each batch as a file of its stream, or a file for each partition, each message once.

    A batch settles when its files are complete and durable, and an entry of the manifest lists
    them. The entry also says which offsets are done. Messages with these offsets are skipped when
    they arrive again, after a crash or a retry. `complete_files` lists the files to read.

    A file has the messages of one batch, stream and partition. `roll=64 << 20` makes batches of so
    many bytes of bodies, which wait at most `batch_timeout` seconds (60) for more. With
    `roll=timedelta(hours=1)`, a batch has the messages that were written to the stream in one full
    hour; `partition_by` may choose folders by another time. With `roll`, each partition has its
    own batch. Messages settle with their file, so `max_in_flight` also limits its size.

    `partition_by="day"` writes into folders such as `day=2026-11-29`, as Hive does. A function gets
    the message and returns the folders as a dict, such as `{"day": ..., "region": ...}`.

    Data can be models, dataclasses, msgspec Structs, dicts, and bytes with JSON. If a message
    cannot be a row, or has no partition, only that message fails.

    If the source stores no offsets, as an iterable, every run writes all its messages.
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
        self.roll: int | timedelta | None = options.roll
        self.schema: Any = options.schema
        self.origin: bool = options.origin
        self.reference: str | None = options.reference

    @property
    def rolling(self) -> Rolling | None:
        roll = self.roll
        if roll is None:
            return None
        apart = None if self.partition_by is None else self._folder_of
        if isinstance(roll, timedelta):
            return Rolling(window=roll.total_seconds(), apart=apart)
        return Rolling(max_bytes=roll, apart=apart)

    def _folder_of(self, message: Message[Any]) -> str:
        by = self.partition_by
        if isinstance(by, str):
            return folder_of(values_of(by, message.data))
        assert by is not None
        return folder_by(by, message)

    def guarantee(self) -> Guarantee:
        return EXACTLY_ONCE

    @property
    def destination(self) -> str:
        return shown_directory(self.directory)

    def record_reference(self, pipeline: str, batcher: str) -> str:
        return self.reference or pipeline

    def record(self, pipeline: str, name: str) -> str:
        reference = self.record_reference(pipeline, name)
        return f"{same_directory(self.directory)}, reference {reference!r}"

    def initialize(self) -> None:
        with _failing(self):
            check_store(open_store(self.directory))

    def written(self, reference: str) -> Mapping[str, DoneRanges] | None:
        with _failing(self):
            return written(open_store(self.directory), reference)

    def forget(self, reference: str, stream: str) -> None:
        with _failing(self):
            CommitLog(open_store(self.directory), reference, stream).forget()

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        reference = self.reference or context.pipeline
        store = open_store(self.directory)
        await anyio.to_thread.run_sync(check_store, store, abandon_on_cancel=True)
        writer = _Writer(self, store, reference)
        context.hand_overs.append(writer.finish)
        yield writer.write
        await writer.finish(context.settled())

    def __repr__(self) -> str:
        roll = "" if self.roll is None else f", roll={self.roll!r}"
        return f"FileSink({shown_directory(self.directory)!r}, format={self.format!r}{roll})"


@contextmanager
def _failing(sink: FileSink) -> Iterator[None]:
    """What the file system says, as an error of the sink."""
    try:
        yield
    except FlowstreamError:
        raise
    except Exception as error:
        raise SinkFailed(f"{sink.destination}: {describe(error)}") from error


class _Writer:
    """The sink in one run, with a commit log for each stream."""

    def __init__(self, sink: FileSink, store: Store, reference: str) -> None:
        self._sink = sink
        self._store = store
        self._reference = reference
        self._encode: Encoder = ndjson if sink.format == "ndjson" else parquet(sink.schema)
        self._logs: dict[str, CommitLog] = {}
        self._locks: dict[str, anyio.Lock] = {}
        self._threads = thread_limiter()  # those that were given up count, too
        self._closed_early = False
        self._replaced: StreamReplaced | None = None

    async def write(self, batch: Batch[Any]) -> None:
        """Write a batch. Returns when each message is in a complete file or has failed."""
        if batch.trigger == "window" and self._sink.roll is not None and not self._closed_early:
            self._closed_early = True
            _log.warning(
                "%s: files are closed before they are full, because the pipeline has reached "
                "max_in_flight or max_in_flight_bytes; raise them, or lower roll",
                self._sink, extra={"reference": self._reference, "batcher": batch.batcher},
            )  # fmt: skip
        messages: Sequence[Any] = batch.messages if callable(self._sink.partition_by) else ()
        data = batch.data
        failed: dict[int, BaseException] = {}
        broken: dict[int, BaseException] = {}
        committed: list[str] = []
        for stream, part in _by_stream(batch).items():
            encode = _Encoding(self._sink, self._encode, stream, part, data, messages)
            incoming = Incoming(
                part.offsets, part.timestamps, part.settled,
                early=part.early, again=batch.attempt > 1,
            )  # fmt: skip
            try:
                left_out = await self._commit(stream, incoming, encode, resumes=part.resumes)
            except anyio.get_cancelled_exc_class() as cancelled:
                if committed:  # no policy may give up what is in their files
                    raise OutcomeUnknown(
                        f"{self._sink}: cancelled when the files of {', '.join(committed)} were "
                        "complete, and those of other streams were not"
                    ) from cancelled
                raise
            except Exception as wrong:  # the files of other streams are complete, or may be
                broken |= dict.fromkeys(part.indexes, wrong)
                continue
            committed.append(stream)
            failed |= encode.failed
            if left_out:
                _log.info(
                    "%s: skipped %s of %s that are already in complete files", self._sink,
                    plural(left_out, "message"), stream,
                    extra={"stream": stream, "reference": self._reference},
                )  # fmt: skip
        for index, error in broken.items():
            batch.messages[index].fail(error)
        for index, error in failed.items():
            batch.messages[index].fail(error, retry=False)

    async def finish(self, settled: Mapping[str, range]) -> None:
        """Close the gaps in the manifest, up to what the run has settled, if it takes a moment.

        That is at the end of the run, and before another process reads a stream.
        """
        if self._replaced is not None:
            return
        with anyio.move_on_after(CLOSE_WITHIN):
            for stream in self._logs.keys() & settled.keys():
                async with self._locks[stream]:
                    if stream in self._logs:  # a commit may have been given up meanwhile
                        await self._close_gaps(stream, settled[stream])

    async def _close_gaps(self, stream: str, settled: range) -> None:
        try:
            await anyio.to_thread.run_sync(
                self._logs[stream].close_gaps, settled,
                abandon_on_cancel=True, limiter=self._threads,
            )  # fmt: skip
        except anyio.get_cancelled_exc_class():
            del self._logs[stream]  # its thread may go on
            raise
        except Exception as error:
            _log.debug(
                "%s: the gaps in the manifest of %s were not closed: %s", self._sink, stream,
                describe(error), extra={"stream": stream, "reference": self._reference},
            )  # fmt: skip

    async def _commit(
        self, stream: str, incoming: Incoming, encode: _Encoding, *, resumes: bool
    ) -> int:
        """Commit in a thread. Returns how many messages were done before.

        A thread that hangs is given up, by a timeout or at the end of a drain. It may have written
        files, so its log is not used again: a new log reads what others did, as of another process.
        """
        async with self._locks.setdefault(stream, anyio.Lock()):
            if stream not in self._logs:
                log = CommitLog(self._store, self._reference, stream, resumes=resumes)
                self._logs[stream] = log
            if self._replaced is not None:  # what is written of a new stream would come again
                raise self._replaced
            gate = CommitGate()
            try:
                return await in_thread(
                    self._logs[stream].commit, incoming, encode, gate,
                    give_up=gate.close, limiter=self._threads,
                )  # fmt: skip
            except StreamReplaced as error:
                self._replaced = error
                raise
            except OutcomeOpen as error:
                self._logs[stream] = CommitLog(
                    self._store, self._reference, stream, resumes=resumes, in_doubt=True
                )
                raise OutcomeUnknown(
                    f"{self._sink}: {error}. The messages are left to the next run, which finds out"
                ) from error
            except anyio.get_cancelled_exc_class():
                del self._logs[stream]
                raise


@dataclass(slots=True)
class _Part:
    """The messages of one stream in a batch: their indexes in it, offsets and timestamps."""

    resumes: bool
    settled: Range | None = None
    early: frozenset[int] = frozenset()
    indexes: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)


def _by_stream(batch: Batch[Any]) -> Mapping[str, _Part]:
    """The messages of a batch by stream, because a file has messages of one stream."""
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
    for part in parts.values():
        # Few messages are below the watermark. Without the flag, they came twice to this process,
        # such as those of a partition that it lost and got again.
        if part.settled is not None and min(part.offsets) <= part.settled[1]:
            messages = batch.messages
            part.early = frozenset(
                at for at, index in enumerate(part.indexes) if messages[index].settled_early
            )
    return parts


@dataclass(slots=True)
class _Encoding:
    """Encodes the files for the messages of a part that have to be written. Runs in a thread."""

    sink: FileSink
    encode: Encoder
    stream: str
    part: _Part
    data: list[Any]
    messages: Sequence[Any]
    failed: dict[int, BaseException] = field(default_factory=dict)
    """The errors of messages that are in no file, by their index in the batch."""

    def __call__(self, wanted: list[int]) -> list[Part]:
        self.failed = {}  # another attempt, after another process was faster
        folders: dict[str, list[int]] = {}
        for index in wanted:
            place = self.part.indexes[index]
            try:
                folder = self._folder(place)
            except BaseException as error:
                if interrupts(error):
                    raise
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
            [by] if isinstance(by, str) else [],  # the name of the folder has its values
        )
        encoded = self.encode(rows)
        for at, error in encoded.errors.items():
            self.failed[part.indexes[indexes[at]]] = error
        held = [offset for at, offset in enumerate(offsets) if at not in encoded.errors]
        return Part(folder, held, encoded.content, self.sink.format)
