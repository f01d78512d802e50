"""The commits of one reference and stream: numbered entries, each created where there was none.

A commit goes like this, every step durable before the next one:

1. the intent, a list of the data files to come
2. the data files, under names that no other attempt uses
3. the entry with the next number: from here on its files are complete and its offsets are done
4. the intent is removed

Whoever creates an entry has read all entries before it. So of two processes that write the same
messages, such as one that lost its partition and does not know it yet, the second finds the number
taken, reads what the first has done, and writes only what is left: each offset is in the files of
exactly one entry, whatever the order and whoever dies. After a crash the same rule tells what to
remove: the files of an attempt for number N are garbage once entry N exists and does not list them.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from flowstream.connectors.done_ranges import DoneRanges, Range, ranges_of
from flowstream.connectors.files.manifest import DataFile, Entry, Layout, sequence_of
from flowstream.connectors.files.names import data_name
from flowstream.connectors.files.stores import Store
from flowstream.errors import SinkFailed, StreamReplaced

_log = logging.getLogger("flowstream.connectors")


@dataclass(frozen=True, slots=True)
class Part:
    """What one data file is to hold: rows as bytes, the folder they belong to, their offsets."""

    folder: str
    offsets: Sequence[int]
    content: bytes
    suffix: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """Messages to commit. `timestamps` are those of their chunks, in milliseconds (0: not known),
    and `settled` the offsets that the run has settled so far without a gap. `again`: they were
    given to `commit` before, and it failed."""

    offsets: Sequence[int]
    timestamps: Sequence[int]
    settled: Range | None = None
    again: bool = False


Encode = Callable[[list[int]], list[Part]]
"""Makes the files of the messages at these indexes."""


class CommitLog:
    """Not for two threads at a time.

    `resumes`: an offset means the same message in every run. Where it does not, as of an
    iterable, only what this run wrote counts as done.
    """

    def __init__(self, store: Store, reference: str, stream: str, *, resumes: bool = True) -> None:
        self.store = store
        self.reference = reference
        self.stream = stream
        self.resumes = resumes
        self.done: DoneRanges = DoneRanges()
        self._layout = Layout(reference, stream)
        self._last: int = -1
        self._newest = 0
        self._opened = False

    def commit(self, incoming: Incoming, encode: Encode) -> int:
        """Write what is not done yet, and return how many messages were. Durable on return.

        After an exception the outcome may be unknown; the next call reads it.
        """
        if not self._opened:
            self._open()
        wanted: list[int] | None = None
        parts: list[Part] = []
        while True:
            missing = self._missing(incoming)
            if len(missing) < len(incoming.offsets):
                self._check_same_stream(incoming, missing)
            if missing != wanted:
                wanted, parts = missing, encode(missing) if missing else []
            if not parts or self._try(parts, incoming):
                return len(incoming.offsets) - len(missing)

    def _missing(self, incoming: Incoming) -> list[int]:
        """The indexes of what is not done.

        A message that its handler settled early counts as done with the watermark, unwritten.
        """
        missing = self.done.missing(incoming.offsets)
        if incoming.settled is None or incoming.again or len(missing) == len(incoming.offsets):
            return missing
        first, last = incoming.settled
        early = {i for i, offset in enumerate(incoming.offsets) if first <= offset <= last}
        return sorted({*missing} | early) if early else missing

    # -- one attempt

    def _try(self, parts: list[Part], incoming: Incoming) -> bool:
        """Commit at the next number; False where another process was first."""
        sequence, token = self._last + 1, secrets.token_hex(6)
        intent = self._layout.intent(sequence, token)
        files = tuple(self._file(part, sequence, token, index) for index, part in enumerate(parts))
        self._opened = False  # until it is known how this ends
        paths = json.dumps([file.path for file in files]).encode()
        self.store.put(intent, paths, self._layout.temporary(sequence, token, "intent"))
        for index, (part, file) in enumerate(zip(parts, files, strict=True)):
            temporary = self._layout.temporary(sequence, token, index)
            self.store.put(file.path, part.content, temporary)
        done = DoneRanges(self.done)
        for file in files:
            done.add(file.offsets)
        if incoming.settled is not None:
            done.add([incoming.settled])
        newest = max(self._newest, *incoming.timestamps, 0)
        entry = Entry(self.reference, self.stream, sequence, token, files, tuple(done), newest)
        if not self._create(entry):
            self._read_behind(sequence)
            self._discard(sequence, token, [file.path for file in files])
            self._opened = True
            return False
        self._last, self.done, self._newest = sequence, done, newest
        self._opened = True
        with suppress(OSError):  # it is only garbage: the next start removes it
            self.store.delete(intent)
        return True

    def _file(self, part: Part, sequence: int, token: str, index: int) -> DataFile:
        offsets = (min(part.offsets), max(part.offsets))
        attempt = f"{sequence:09d}-{token}{index:x}"
        name = data_name(self.stream, offsets, attempt, part.suffix)
        path = f"{part.folder}/{name}" if part.folder else name
        return DataFile(path, len(part.offsets), len(part.content), tuple(ranges_of(part.offsets)))

    def _create(self, entry: Entry) -> bool:
        """Create the entry; False where another one has its number."""
        path = self._layout.entry(entry.sequence)
        temporary = self._layout.temporary(entry.sequence, entry.token, "entry")
        try:
            self.store.create(path, entry.encoded(), temporary)
        except FileExistsError:
            # Also when this very entry was stored, the answer was lost, and the client tried again.
            return self._read(entry.sequence).token == entry.token
        return True

    # -- what others did

    def _read(self, sequence: int) -> Entry:
        path = self._layout.entry(sequence)
        entry = Entry.decoded(path, self.store.read(path))
        if (entry.reference, entry.stream) != (self.reference, self.stream):
            raise SinkFailed(
                f"{path} belongs to reference {entry.reference!r} and stream {entry.stream!r}, not "
                f"to {self.reference!r} and {self.stream!r}: the file system does not tell the "
                "names apart. Use another directory"
            )
        return entry

    def _read_behind(self, known: int = -1) -> None:
        """Take over what the newest entry says. It includes all before it. `known`: one exists."""
        newest = max(known, self._find_last())
        if newest <= self._last:
            return
        entry = self._read(newest)
        if self.resumes:
            self.done = DoneRanges(entry.done)
            self._newest = entry.newest
        self._last = newest

    def _find_last(self) -> int:
        """The number of the last entry; -1 where there is none."""
        numbers = [number for name in self.store.names(self._layout.segments)
                   if (number := sequence_of(name)) is not None]  # fmt: skip
        for segment in sorted(numbers, reverse=True):
            folder = f"{self._layout.segments}/{segment:09d}"
            found = [n for name in self.store.names(folder) if (n := sequence_of(name)) is not None]
            if found:
                return max(found)
        return -1

    def _open(self) -> None:
        """Read what is done, and remove what attempts that ended in between have left.

        Of an attempt for the next number nobody knows whether it goes on. An empty entry takes that
        number first: if the attempt still lives, it finds the number taken and writes anew.
        """
        self._read_behind()
        pending = self.store.names(self._layout.pending)
        attempts = {number for name in pending if (number := sequence_of(name)) is not None}
        while attempts and max(attempts) > self._last:
            number = self._last + 1
            barrier = Entry(self.reference, self.stream, number, secrets.token_hex(6), (),
                            tuple(self.done), self._newest)  # fmt: skip
            if self._create(barrier):
                self._last = number
            else:
                self._read_behind(number)
        for name in pending:
            self._clear(name)
        self._opened = True

    def _clear(self, name: str) -> None:
        """Remove the files of an attempt, unless its entry lists them."""
        sequence, path = sequence_of(name), f"{self._layout.pending}/{name}"
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
                    "%s cannot be read, so what it lists is not removed", path,
                    extra={"stream": self.stream, "reference": self.reference},
                )  # fmt: skip
                return
            ours = [it for it in paths if f"-{sequence:09d}-{token}" in it and ".." not in it]
            self._discard(sequence, token, ours)
        else:
            self.store.delete(path)

    def _discard(self, sequence: int, token: str, paths: Sequence[str]) -> None:
        """Remove an attempt that has no entry. Its intent goes last."""
        if self._read(sequence).token == token:
            paths = []
        for path in paths:
            self.store.delete(path)
        self.store.delete(self._layout.intent(sequence, token))

    def _check_same_stream(self, incoming: Incoming, missing: list[int]) -> None:
        """A message that is done was in a chunk that is not newer than all that were written."""
        if not (self.resumes and self._newest):
            return
        left = set(missing)
        for index, (offset, timestamp) in enumerate(
            zip(incoming.offsets, incoming.timestamps, strict=True)
        ):
            if index not in left and timestamp > self._newest:
                raise StreamReplaced(
                    f"offset {offset} of {self.stream!r} is written already under the reference "
                    f"{self.reference!r}, and the message is newer than all that were: the stream "
                    "was deleted and created again. Give FileSink another reference= or directory"
                )
