"""Dead letters for the live page of `flowstream run`, with bounds on what is read and shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from flowstream.cli.connection.connect import Connection
from flowstream.cli.dead_letters.dead_letter_records import DeadLetterRecord, read, whole
from flowstream.cli.dead_letters.replay import next_to_replay, replay_chosen, replay_waiting
from flowstream.cli.output.messages import shown
from flowstream.client import Environment

LOOKED_AT = 200
"""Offsets at the end of a stream that a list reads. Some are records of replays."""


class LivePageDeadLetters:
    """Dead letters, read over a connection that is opened for each request.

    `streams` are by pipeline. No body is shown of the streams in `masked`, whose pipelines mask
    their messages.
    """

    def __init__(
        self, connection: Connection, streams: Mapping[str, str], masked: frozenset[str]
    ) -> None:
        self.streams = streams
        self._connection = connection
        self._masked = masked

    async def waiting(self, stream: str, most: int) -> dict[str, Any]:
        """See `flowstream.monitor.DeadLetters`."""
        async with self._opened() as environment:
            start = await next_to_replay(environment, stream)
            end = await environment.last_offset(stream)
            if end is None or start > end:
                return {"waiting": 0, "exact": True, "letters": []}
            begin = max(start, end + 1 - LOOKED_AT)
            newest: deque[DeadLetterRecord] = deque(maxlen=most)
            seen = 0
            async for batch in read(environment, stream, begin, quiet=True):
                letters = [letter for letter in batch if letter.offset >= begin]
                newest.extend(letters)
                seen += len(letters)
            return {
                "waiting": seen if begin == start else end + 1 - start,
                "exact": begin == start,
                "letters": [letter.row() for letter in reversed(newest)],
            }

    async def letter(self, stream: str, offset: int, most: int) -> dict[str, Any] | None:
        """See `flowstream.monitor.DeadLetters`."""
        async with self._opened() as environment:
            async for batch in read(environment, stream, offset, quiet=True):
                if batch and batch[0].offset == offset:
                    return self._shown(await whole(environment, batch[0]), stream, most)
                break
        return None

    def _shown(self, letter: DeadLetterRecord, stream: str, most: int) -> dict[str, Any]:
        original = shown(letter.source, letter.source_offset, letter.timestamp, letter.body)
        about = {**letter.row(), "error": letter.error, "traceback": letter.traceback}
        if stream in self._masked:
            return {**about, "body": None, "missing": "this pipeline masks its messages", "size": 0}
        text = original.body[: 4 * most].decode(errors="backslashreplace")
        return {
            **about,
            "body": None if letter.missing else text[:most],
            "missing": letter.missing or original.reason,
            "size": len(original.body),
            "properties": {name: str(value) for name, value in original.properties.items()},
        }

    async def replay(self, stream: str, offsets: Sequence[int] | None) -> dict[str, Any]:
        """See `flowstream.monitor.DeadLetters`."""
        async with self._opened() as environment:
            if offsets is None:
                done = await replay_waiting(environment, stream, None, dry_run=False)
            else:
                chosen = sorted(set(offsets))
                done = await replay_chosen(environment, stream, chosen, None, dry_run=False)
        replayed = done.published + done.before
        return {
            "replayed": dict(replayed),
            "left": {str(offset): why for offset, why in sorted(done.left.items())},
        }

    def _opened(self) -> Environment:
        return self._connection.environment(name="flowstream page")
