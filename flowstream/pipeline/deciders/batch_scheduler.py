"""Which of the full batches may be handled now. Pure.

A batch holds a token for its partition and one for its key. Batches with a token in common are
handled one after the other, in the order they were closed, and never at the same time; a batch
that waits to be tried again keeps its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from flowstream.pipeline.batch import Batch


class BatchScheduler:
    """Batches from the batcher to its batch processors. `serial`: one at a time, in order."""

    __slots__ = ("_lines", "_ready", "_tokens", "batches", "messages", "serial")

    def __init__(self, *, serial: bool) -> None:
        self.serial: bool = serial
        self.batches: int = 0
        self.messages: int = 0
        self._ready: deque[Batch[Any]] = deque()
        self._lines: dict[Hashable, deque[Batch[Any]]] = {}
        self._tokens: dict[int, tuple[Hashable, ...]] = {}

    def put(self, batch: Batch[Any]) -> None:
        """A batch was closed."""
        tokens = self._tokens_of(batch)
        lines = [self._lines.setdefault(token, deque()) for token in tokens]  # a key may raise
        self.batches += 1
        self.messages += len(batch._slice)
        self._tokens[id(batch)] = tokens
        for line in lines:
            line.append(batch)
        if self._first(batch, tokens):
            self._ready.append(batch)

    def take(self) -> Batch[Any] | None:
        """The next batch that may be handled; call `done` or `swap` with it."""
        return self._ready.popleft() if self._ready else None

    def swap(self, batch: Batch[Any], instead: Batch[Any]) -> None:
        """`instead` takes the place of `batch`. Batches that wait for it keep waiting."""
        tokens = self._tokens.pop(id(batch))
        self._tokens[id(instead)] = tokens
        for token in tokens:
            self._lines[token][0] = instead
        self.messages += len(instead._slice) - len(batch._slice)

    def resume(self, batch: Batch[Any]) -> None:
        """Handle a batch that waited for its retry now, before others."""
        self._ready.appendleft(batch)

    def done(self, batch: Batch[Any]) -> None:
        """The batch is settled. Those that waited for it may be handled."""
        self.batches -= 1
        self.messages -= len(batch._slice)
        self._free(self._tokens.pop(id(batch)))

    def pass_on(self, batch: Batch[Any]) -> None:
        """Those that wait for the batch may be handled, although it is not settled yet."""
        tokens, self._tokens[id(batch)] = self._tokens[id(batch)], ()
        self._free(tokens)

    def _free(self, tokens: tuple[Hashable, ...]) -> None:
        freed = []
        for token in tokens:
            line = self._lines[token]
            line.popleft()
            if line:
                freed.append(line[0])
            else:
                del self._lines[token]
        for index, next_batch in enumerate(freed):
            seen = any(next_batch is other for other in freed[:index])
            if not seen and self._first(next_batch, self._tokens[id(next_batch)]):
                self._ready.append(next_batch)

    @property
    def ready(self) -> int:
        """How many batches can be handled as soon as a worker is free."""
        return len(self._ready)

    def _first(self, batch: Batch[Any], tokens: tuple[Hashable, ...]) -> bool:
        return all(self._lines[token][0] is batch for token in tokens)

    def _tokens_of(self, batch: Batch[Any]) -> tuple[Hashable, ...]:
        if self.serial:
            return (_SERIAL,)
        tokens: tuple[Hashable, ...] = ()
        if batch.partition is not None:
            tokens += (("partition", batch.partition),)
        if batch.key is not None:
            tokens += (("key", batch.key),)
        return tokens


_SERIAL = ("serial",)
