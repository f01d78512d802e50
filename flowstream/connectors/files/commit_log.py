"""The commits of one reference and stream: entries with consecutive numbers, each created once.

A commit has four steps, and each is durable before the next one:

1. write the intent: a list of the data files to come
2. write the data files, under names that no other attempt uses
3. create the entry with the next number: now its files are complete and its offsets are done
4. remove the intent

A process creates an entry only after it has read all entries before. Two processes may write the
same messages, such as when one lost its partition and does not know it yet. Then the second one
finds that the number exists, reads what the first one did, and writes only the rest. So each offset
is in the files of exactly one entry, in any order and after any crash. The same rule says what to
remove after a crash: the files of an attempt for number N, if entry N exists and does not list
them.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from flowstream.connectors.commit_gate import CommitGate
from flowstream.connectors.done_ranges import DoneRanges, Range, ranges_of
from flowstream.connectors.files.manifest import DataFile, Entry, Layout, attempt_number
from flowstream.connectors.files.names import data_name
from flowstream.connectors.files.reading import last_sequence
from flowstream.connectors.files.stores import Store
from flowstream.connectors.written_times import WrittenTimes
from flowstream.errors import FlowstreamError, OutcomeUnknown, SinkFailed, StreamReplaced
from flowstream.texts import describe

_log = logging.getLogger("flowstream.connectors")


@dataclass(frozen=True, slots=True)
class Part:
    """The content of one data file: encoded rows, their folder and their offsets."""

    folder: str
    offsets: Sequence[int]
    content: bytes
    suffix: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """Messages to commit.

    `timestamps` are the times of their chunks in milliseconds (0: unknown). `settled` is the range
    of offsets that the run has settled without a gap. `early` are the indexes of messages that
    their handler settled before any file had them. `again`: a commit of them failed before.
    """

    offsets: Sequence[int]
    timestamps: Sequence[int]
    settled: Range | None = None
    early: frozenset[int] = frozenset()
    again: bool = False


Encode = Callable[[list[int]], list[Part]]
"""Encodes the files for the messages at these indexes."""


class CommitLog:
    """The commits of one reference and stream. Not safe for concurrent use by threads.

    `resumes`: an offset means the same message in every run. If it does not, as for an iterable,
    only the messages that this run wrote are done. `in_doubt`: another log of this run has begun a
    commit, and nobody knows whether its entry exists.
    """

    def __init__(
        self,
        store: Store,
        reference: str,
        stream: str,
        *,
        resumes: bool = True,
        in_doubt: bool = False,
    ) -> None:
        self.store = store
        self.reference = reference
        self.stream = stream
        self.resumes = resumes
        self.done: DoneRanges = DoneRanges()
        self._layout = Layout(reference, stream)
        self._last: int = -1
        self._times = WrittenTimes()
        self._opened = False
        self.in_doubt: bool = in_doubt

    def commit(self, incoming: Incoming, encode: Encode, gate: CommitGate) -> int:
        """Write the messages that are not done. Returns how many were done before.

        The files are durable when it returns. After OutcomeUnknown the next call finds out; after
        another exception nothing is committed.
        """
        if not self._opened:
            self._open_surely()
        wanted: list[int] | None = None
        parts: list[Part] = []
        while True:
            missing = self._missing(incoming)
            if len(missing) < len(incoming.offsets):
                self._check_same_stream(incoming, missing)
            if missing != wanted:
                wanted, parts = missing, encode(missing) if missing else []
            if not parts or self._try(parts, incoming, gate):
                return len(incoming.offsets) - len(missing)

    def close_gaps(self, settled: range) -> None:
        """At the end of a run: close the gaps in what it has settled, which the next run could not.

        If another process commits at the same time, they stay.
        """
        done = DoneRanges(self.done)
        done.close_gaps(settled, done.last)
        if not (self._opened and self.resumes) or len(done) == len(self.done):
            return
        number = self._last + 1
        entry = Entry(self.reference, self.stream, number, secrets.token_hex(6), (),
                      tuple(done), tuple(self._times))  # fmt: skip
        if self._create(entry):
            self._last, self.done = number, done

    def forget(self) -> None:
        """Forget what was written. Complete files stay complete."""
        if not self._opened:
            self._open()
        while self.done or self._times.newest:
            number = self._last + 1
            empty = Entry(self.reference, self.stream, number, secrets.token_hex(6))
            if self._create(empty):
                self._last, self.done, self._times = number, DoneRanges(), WrittenTimes()
            else:
                self._read_behind(number)

    def _missing(self, incoming: Incoming) -> list[int]:
        """The indexes of messages that are not done.

        Those that were settled early are written although they are below the watermark.
        """
        missing = self.done.missing(incoming.offsets)
        if not incoming.early or incoming.again:
            return missing
        return sorted(incoming.early.union(missing))

    # -- one attempt

    def _try(self, parts: list[Part], incoming: Incoming, gate: CommitGate) -> bool:
        """Commit with the next number. False if another process was first."""
        sequence, token = self._last + 1, secrets.token_hex(6)
        intent = self._layout.intent(sequence, token)
        files = tuple(self._file(part, sequence, token, index) for index, part in enumerate(parts))
        self._opened = False  # until the outcome is known
        paths = json.dumps([file.path for file in files]).encode()
        try:
            self.store.put(intent, paths, self._layout.temporary(sequence, token, "intent"))
            for index, (part, file) in enumerate(zip(parts, files, strict=True)):
                temporary = self._layout.temporary(sequence, token, index)
                self.store.put(file.path, part.content, temporary)
        except FileNotFoundError:  # another process removed a temporary file: the number exists
            return self._lost(sequence, token, files)
        done = DoneRanges(self.done)
        for file in files:
            done.add(file.offsets)
        if incoming.settled is not None:
            done.add([incoming.settled])
        times = WrittenTimes(self._times)
        begin, end = incoming.settled or (0, -1)
        offsets, newest = incoming.offsets, max(incoming.timestamps)
        times.add(min(offsets), max(offsets), newest, range(begin, end + 1))
        entry = Entry(
            self.reference, self.stream, sequence, token, files, tuple(done), tuple(times)
        )
        gate.enter()
        if not self._create_surely(entry):
            return self._lost(sequence, token, files)
        self._last, self.done, self._times = sequence, done, times
        self._opened = True
        with suppress(Exception):  # the next start removes it
            self.store.delete(intent)
        return True

    def _lost(self, sequence: int, token: str, files: Sequence[DataFile]) -> Literal[False]:
        """Read what the process did that was first, and remove the files of this attempt."""
        self._read_behind(sequence)
        self._discard(sequence, token, [file.path for file in files])
        self._opened = True
        return False

    def _file(self, part: Part, sequence: int, token: str, index: int) -> DataFile:
        offsets = (min(part.offsets), max(part.offsets))
        attempt = f"{sequence:09d}-{token}{index:x}"
        name = data_name(self.stream, offsets, attempt, part.suffix)
        path = f"{part.folder}/{name}" if part.folder else name
        return DataFile(path, len(part.offsets), len(part.content), tuple(ranges_of(part.offsets)))

    def _create(self, entry: Entry) -> bool:
        """Create the entry. False if another entry has its number."""
        path = self._layout.entry(entry.sequence)
        temporary = self._layout.temporary(entry.sequence, entry.token, "entry")
        try:
            self.store.create(path, entry.encoded(), temporary)
        except (FileExistsError, FileNotFoundError):
            # It may be this entry: stored, with the answer lost, and created again by a retry. The
            # temporary file is removed by others only after the number exists.
            return self._read(entry.sequence).token == entry.token
        return True

    def _create_surely(self, entry: Entry) -> bool:
        """`_create`, if the store can say afterwards whether the entry is there.

        An error may have come after the effect, such as a lost answer. Without this, the messages
        of a complete file would become dead letters, too.
        """
        self.in_doubt = True
        try:
            created = self._create(entry)
        except FlowstreamError:
            self.in_doubt = False
            raise
        except Exception as error:
            if self.store.late:  # the request may be on its way: another entry takes the number
                self._open_surely()
            try:
                created = self._read(entry.sequence).token == entry.token
            except FileNotFoundError:
                created = False
            except Exception:
                raise self._outcome_unknown(error) from error
            if not created:
                self.in_doubt = False
                raise
        self.in_doubt = False
        return created

    def _open_surely(self) -> None:
        """`_open`, after which it is known whether an entry that was in doubt exists."""
        try:
            self._open()
        except Exception as error:
            if not self.in_doubt:
                raise
            raise self._outcome_unknown(error) from error
        self.in_doubt = False

    def _outcome_unknown(self, error: Exception) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.store.directory}: {describe(error)}. A commit may have happened, so the "
            "messages are left to the next run, which finds out"
        )

    # -- what others did

    def _read(self, sequence: int) -> Entry:
        path = self._layout.entry(sequence)
        entry = Entry.decoded(path, self.store.read(path))
        if (entry.reference, entry.stream) != (self.reference, self.stream):
            raise SinkFailed(
                f"{path} belongs to reference {entry.reference!r} and stream {entry.stream!r}, not "
                f"to {self.reference!r} and {self.stream!r}: the file system does not "
                "distinguish these names. Use another directory"
            )
        return entry

    def _read_behind(self, known: int = -1) -> None:
        """Read the newest entry, which includes all before it. Entry `known` certainly exists."""
        newest = max(known, last_sequence(self.store, self._layout.segments))
        if newest <= self._last:
            return
        entry = self._read(newest)
        if self.resumes:
            self.done = DoneRanges(entry.done)
            self._times = WrittenTimes(entry.newest)
        self._last = newest

    def _open(self) -> None:
        """Read what is done, and remove the files of attempts that were interrupted.

        An attempt for the next number may still be running. So an empty entry is created with that
        number: if the attempt is running, it finds that the number exists, and starts again.
        """
        self._read_behind()
        pending = self.store.names(self._layout.pending)
        attempts = {number for name in pending if (number := attempt_number(name)) is not None}
        while attempts and max(attempts) > self._last:
            number = self._last + 1
            barrier = Entry(self.reference, self.stream, number, secrets.token_hex(6), (),
                            tuple(self.done), tuple(self._times))  # fmt: skip
            if self._create(barrier):
                self._last = number
            else:
                self._read_behind(number)
        for name in pending:
            self._clear(name)
        self._opened = True

    def _clear(self, name: str) -> None:
        """Remove the files of an attempt, unless its entry lists them."""
        sequence, path = attempt_number(name), f"{self._layout.pending}/{name}"
        if sequence is None:
            return
        if name.endswith(".json"):
            token = name.split(".")[1]
            try:
                paths = json.loads(self.store.read(path))
            except FileNotFoundError:
                return  # its attempt has ended
            except ValueError:
                _log.warning(
                    "%s cannot be read, so the files that it lists are not removed", path,
                    extra={"stream": self.stream, "reference": self.reference},
                )  # fmt: skip
                return
            ours = [it for it in paths if f"-{sequence:09d}-{token}" in it and ".." not in it]
            self._discard(sequence, token, ours)
        else:
            self.store.delete(path)

    def _discard(self, sequence: int, token: str, paths: Sequence[str]) -> None:
        """Remove the files of an attempt that has no entry, and then its intent."""
        if self._read(sequence).token == token:
            paths = []
        for path in paths:
            self.store.delete(path)
        self.store.delete(self._layout.intent(sequence, token))

    def _check_same_stream(self, incoming: Incoming, missing: list[int]) -> None:
        """Raise StreamReplaced if a message with a done offset is newer than all written ones."""
        if not self.resumes:
            return
        left = set(missing)
        for index, (offset, timestamp) in enumerate(
            zip(incoming.offsets, incoming.timestamps, strict=True)
        ):
            if index not in left and self._times.is_replaced(offset, timestamp):
                raise StreamReplaced(
                    f"offset {offset} of {self.stream!r} is already written under the reference "
                    f"{self.reference!r}, but its message is newer than all written ones: the "
                    "stream was deleted and created again. Give FileSink another reference= or "
                    "directory"
                )
