"""Dead letters published again exactly once, even if a replay is killed.

The broker keeps two things. The position of the last replay is stored as an offset of the
dead-letter stream under `REFERENCE`, after the confirms. And each message has the offset of its
dead letter as publishing id, so that the broker drops what a killed replay had already published.

The offsets of a stream that was deleted and created again start at 0 again. So publishers use a
reference with the edition of the stream: a random number, stored as an offset of the stream at the
first replay, which is deleted with the stream.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from flowstream.cli.connection.streams import partitions_of
from flowstream.cli.dead_letters.dead_letter_records import DeadLetterRecord, read, whole
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing
from flowstream.cli.publishing.record_formats import InputOptions, key_in
from flowstream.cli.publishing.records import LONGEST
from flowstream.client import Environment, Publisher, hash_route
from flowstream.errors import ProtocolError
from flowstream.protocol import data_of

REFERENCE = "flowstream-replay"
"""The reference under which the position of a replay is stored."""

GROUP_BYTES = 16 << 20
"""The size of bodies in memory at a time."""

EDITION = "flowstream-replay-edition"
"""The reference under which the edition of the stream is stored."""


@dataclass(slots=True)
class Replayed:
    """The result of a replay: numbers of messages by target stream.

    `before` counts messages that an earlier, interrupted replay had published. `left` has the dead
    letters that could not be replayed: offset -> reason. `keyless` of them have no key.
    """

    published: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    left: dict[int, str] = field(default_factory=dict)
    keyless: int = 0

    @property
    def wrong_key(self) -> bool:
        """Whether no dead letter has the key that was asked for: the position stays."""
        return self.keyless > 0 and not self.published and not self.before


async def next_to_replay(environment: Environment, stream: str) -> int:
    """The offset of the dead-letter stream with which the next replay starts."""
    stored = await environment.query_offset(REFERENCE, stream)
    return 0 if stored is None else stored + 1


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a replay publishes: to `to`, or to the original streams if that is None.

    In a super stream, the value of the field `key` selects one of `partitions`.
    """

    to: str | None
    partitions: list[str] = field(default_factory=list)
    key: str = ""


async def destination_of(environment: Environment, to: str | None, key: str | None) -> Destination:
    """The destination for `--to` and `--key`. Raises CommandError if they do not fit each other."""
    partitions = None if to is None else await partitions_of(environment, to)
    if to is None or partitions is None:
        if key is not None:
            raise CommandError(
                f"--to {to} is a stream, and --key is only for super streams; omit --key",
                ExitCode.USAGE,
            )
        return Destination(to)
    if key is None:
        raise CommandError(
            f"--to {to} is a super stream: name the field that chooses the partition with --key "
            "FIELD, or one of its partitions",
            ExitCode.USAGE,
        )
    if await environment.routing_of(to) == "key":
        raise CommandError(
            f"--to {to} routes by routing keys: name one of its partitions "
            f"({', '.join(partitions)})",
            ExitCode.NOT_SUPPORTED,
        )
    return Destination(to, partitions, key)


async def replay_waiting(
    environment: Environment,
    stream: str,
    to: str | None,
    *,
    key: str | None = None,
    dry_run: bool,
) -> Replayed:
    """Publish every dead letter that was not replayed yet, up to the current end of the stream.

    They go to their original streams, or to `to` (by `key` if that is a super stream). With
    `dry_run`, nothing is published.
    """
    done = Replayed()
    destination = await destination_of(environment, to, key)
    async with AsyncExitStack() as stack:
        targets = Targets(environment, stack, await _reference(environment, stream, dry_run))
        step = stack.enter_context(doing(f"replaying {stream}", unit="dead letter"))
        start = await next_to_replay(environment, stream)
        async for batch in read(environment, stream, start, step):
            for target, letters in (
                await _by_destination(environment, batch, destination, done)
            ).items():
                publisher = await targets.publisher(target)
                last = publisher.last_publishing_id or 0
                earlier = [letter for letter in letters if letter.offset + 1 <= last]
                new = letters[len(earlier) :]
                async for group in _groups(environment, earlier, publisher, done):
                    done.before[target] += len(group)
                async for group in _groups(environment, new, publisher, done):
                    if not dry_run:
                        await publisher.publish_many(
                            [letter.body for letter in group],
                            publishing_ids=[letter.offset + 1 for letter in group],
                        )
                    done.published[target] += len(group)
            if batch and not dry_run and not done.wrong_key:
                await environment.store_offset_verified(REFERENCE, stream, batch[-1].offset)
    if done.wrong_key:
        offset, why = min(done.left.items())
        raise CommandError(
            f"no dead letter of {stream} has a key, so nothing was replayed; dead letter {offset}: "
            f"{why}",
            ExitCode.NOT_REPLAYED,
        )
    return done


async def replay_chosen(
    environment: Environment,
    stream: str,
    offsets: list[int],
    to: str | None,
    *,
    key: str | None = None,
    dry_run: bool,
) -> Replayed:
    """Publish the dead letters at these offsets, even if they were replayed before.

    The stored position does not change.
    """
    done = Replayed()
    destination = await destination_of(environment, to, key)
    async with AsyncExitStack() as stack:
        targets = Targets(environment, stack, None)
        step = stack.enter_context(doing(f"replaying {stream}", unit="dead letter"))
        async for batch in read(environment, stream, min(offsets), step):
            chosen = [letter for letter in batch if letter.offset in offsets]
            for target, letters in (
                await _by_destination(environment, chosen, destination, done)
            ).items():
                publisher = await targets.publisher(target)
                async for group in _groups(environment, letters, publisher, done):
                    if not dry_run:
                        await publisher.publish_many([letter.body for letter in group])
                    done.published[target] += len(group)
            if batch and batch[-1].offset >= max(offsets):
                break
    return done


async def _by_destination(
    environment: Environment,
    letters: list[DeadLetterRecord],
    destination: Destination,
    done: Replayed,
) -> dict[str, list[DeadLetterRecord]]:
    """As `by_target`; dead letters without a partition are added to `done`."""
    if not destination.partitions:
        return by_target(letters, destination.to)
    targets: dict[str, list[DeadLetterRecord]] = {}
    for letter in letters:
        complete = await whole(environment, letter)
        try:
            key = _key_of(complete, destination.key)
        except (CommandError, ProtocolError) as error:
            done.left[letter.offset] = complete.missing or str(error)
            done.keyless += 1
        else:
            targets.setdefault(hash_route(key, destination.partitions), []).append(letter)
    return targets


def _key_of(letter: DeadLetterRecord, field: str) -> str:
    """The value of a field of a dead letter's JSON body. Raises CommandError if it has none."""
    return key_in(data_of(letter.body), 1, InputOptions("its body:", LONGEST, key=field))


async def _groups(
    environment: Environment, letters: list[DeadLetterRecord], publisher: Publisher, done: Replayed
) -> AsyncIterator[list[DeadLetterRecord]]:
    """Dead letters with their bodies, about GROUP_BYTES at a time.

    Those that cannot be published are added to `done`, with the reason.
    """
    group: list[DeadLetterRecord] = []
    size = 0
    for each in letters:
        letter = await whole(environment, each)
        why = letter.missing or _too_large(letter, publisher.max_body)
        if why:
            done.left[letter.offset] = why
            continue
        group.append(letter)
        size += len(letter.body)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _too_large(letter: DeadLetterRecord, room: int | None) -> str:
    if room is None or len(letter.body) <= room:
        return ""
    return (
        f"its body has {len(letter.body):,} bytes, and a frame of this connection has room for "
        f"{room:,}; increase frame_max of the broker and FLOWSTREAM_FRAME_MAX"
    )


def by_target(letters: list[DeadLetterRecord], to: str | None) -> dict[str, list[DeadLetterRecord]]:
    """Dead letters by target stream, in order. Pure."""
    targets: dict[str, list[DeadLetterRecord]] = {}
    for letter in letters:
        targets.setdefault(to or letter.source, []).append(letter)
    return targets


class Targets:
    """A publisher for each target stream, opened when it is first needed."""

    def __init__(
        self, environment: Environment, stack: AsyncExitStack, reference: str | None
    ) -> None:
        self._environment = environment
        self._stack = stack
        self._reference = reference
        self._publishers: dict[str, Publisher] = {}

    async def publisher(self, target: str) -> Publisher:
        """The publisher for a stream. Raises StreamDoesNotExist if the stream is gone."""
        if target not in self._publishers:
            publisher = self._environment.publisher(target, reference=self._reference)
            self._publishers[target] = await self._stack.enter_async_context(publisher)
        return self._publishers[target]


async def _reference(environment: Environment, stream: str, dry_run: bool) -> str | None:
    """The reference for this edition of the stream; None in a dry run before the first replay."""
    edition = await environment.query_offset(EDITION, stream)
    if edition is None:
        if dry_run:
            return None
        edition = secrets.randbits(61)
        await environment.store_offset_verified(EDITION, stream, edition)
    return f"{REFERENCE}-{edition:x}"
