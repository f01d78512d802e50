"""Dead letters published again, exactly once, also when a replay is killed in between.

Two things are kept on the broker. The position, an offset of the dead-letter stream under
`REFERENCE`, says how far the last replay came; it is stored after the confirms. And each message
carries its letter's number as publishing id, under a reference of its own, so that the broker
drops what a replay that was killed had published already, and the next one can tell.

The numbers of a stream that was deleted and made again begin at 0 again. So the reference names the
stream's edition: a number drawn at the first replay and stored as an offset of the stream, which
goes when the stream goes.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowstream.cli.dead_letters.dead_letter_records import Letter, read, whole
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing
from flowstream.errors import ProtocolError

if TYPE_CHECKING:
    from flowstream.client import Environment, Publisher

REFERENCE = "flowstream-replay"
"""The reference that a replay's position is stored under."""

GROUP_BYTES = 16 << 20
"""Bodies that are held at a time."""

EDITION = "flowstream-replay-edition"
"""The reference that the number of the stream's edition is stored under."""


@dataclass(slots=True)
class Replayed:
    """Messages by the stream they went into; `before` those that an earlier replay, which did not
    get to store its position, had published. `left` says, by the letter's offset, why it could not
    be replayed."""

    published: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    left: dict[int, str] = field(default_factory=dict)


async def position(environment: Environment, stream: str) -> int:
    """The offset of the dead-letter stream that a replay goes on with."""
    stored = await environment.query_offset(REFERENCE, stream)
    return 0 if stored is None else stored + 1


@dataclass(frozen=True, slots=True)
class Way:
    """Into `to`, or back to where letters came from; of a super stream into the one of `partitions`
    that the value of the field `key` leads to."""

    to: str | None
    partitions: list[str] = field(default_factory=list)
    key: str = ""


async def way_of(environment: Environment, to: str | None, key: str | None) -> Way:
    """Raises CommandError where `to` and `key` do not fit each other."""
    from flowstream.cli.readers.position import partitions_of

    partitions = None if to is None else await partitions_of(environment, to)
    if to is None or partitions is None:
        if key is not None:
            raise CommandError(
                f"--to {to} is a stream, and --key chooses the partition of a super stream",
                ExitCode.USAGE,
            )
        return Way(to)
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
    return Way(to, partitions, key)


async def replay_waiting(
    environment: Environment,
    stream: str,
    to: str | None,
    *,
    key: str | None = None,
    dry_run: bool,
) -> Replayed:
    """Publish every letter that was not replayed yet, up to the present end of the stream, into
    where it came from or `to` (by `key` where that is a super stream); with `dry_run` only tell."""
    done = Replayed()
    way = await way_of(environment, to, key)
    async with AsyncExitStack() as stack:
        targets = Targets(environment, stack, await _reference(environment, stream, dry_run))
        step = stack.enter_context(doing(f"replaying {stream}", unit="dead letter"))
        start = await position(environment, stream)
        async for batch in read(environment, stream, start, step):
            for target, letters in (await _by_way(environment, batch, way, done)).items():
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
            if batch and not dry_run:
                await environment.store_offset_verified(REFERENCE, stream, batch[-1].offset)
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
    """Publish the letters at these offsets, whether they were replayed before or not; the position
    stays."""
    done = Replayed()
    way = await way_of(environment, to, key)
    async with AsyncExitStack() as stack:
        targets = Targets(environment, stack, None)
        step = stack.enter_context(doing(f"replaying {stream}", unit="dead letter"))
        async for batch in read(environment, stream, min(offsets), step):
            chosen = [letter for letter in batch if letter.offset in offsets]
            for target, letters in (await _by_way(environment, chosen, way, done)).items():
                publisher = await targets.publisher(target)
                async for group in _groups(environment, letters, publisher, done):
                    if not dry_run:
                        await publisher.publish_many([letter.body for letter in group])
                    done.published[target] += len(group)
            if batch and batch[-1].offset >= max(offsets):
                break
    return done


async def _by_way(
    environment: Environment, letters: list[Letter], way: Way, done: Replayed
) -> dict[str, list[Letter]]:
    """As `by_target`; `done` gets the letters that lead to no partition."""
    from flowstream.client import hash_route

    if not way.partitions:
        return by_target(letters, way.to)
    targets: dict[str, list[Letter]] = {}
    for letter in letters:
        complete = await whole(environment, letter)
        try:
            key = _key_of(complete, way.key)
        except (CommandError, ProtocolError) as error:
            done.left[letter.offset] = complete.missing or str(error)
        else:
            targets.setdefault(hash_route(key, way.partitions), []).append(letter)
    return targets


def _key_of(letter: Letter, field: str) -> str:
    """The text of a field of a letter's body, which must be JSON; raises CommandError."""
    from flowstream.cli.publishing.record_formats import Wanted, key_in
    from flowstream.cli.publishing.records import LONGEST
    from flowstream.protocol import data_of

    return key_in(data_of(letter.body), 1, Wanted("its body:", LONGEST, key=field))


async def _groups(
    environment: Environment, letters: list[Letter], publisher: Publisher, done: Replayed
) -> AsyncIterator[list[Letter]]:
    """The letters with their bodies, about GROUP_BYTES at a time; `done` gets those that cannot
    be published, and why."""
    group: list[Letter] = []
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


def _too_large(letter: Letter, room: int | None) -> str:
    if room is None or len(letter.body) <= room:
        return ""
    return (
        f"its body has {len(letter.body):,} bytes, and a frame of this connection holds {room:,}; "
        "raise frame_max, of the broker and FLOWSTREAM_FRAME_MAX"
    )


def by_target(letters: list[Letter], to: str | None) -> dict[str, list[Letter]]:
    """Letters by the stream they go into, in order. Pure."""
    targets: dict[str, list[Letter]] = {}
    for letter in letters:
        targets.setdefault(to or letter.source, []).append(letter)
    return targets


class Targets:
    """A publisher for each stream that letters go into, opened when the first one does."""

    def __init__(
        self, environment: Environment, stack: AsyncExitStack, reference: str | None
    ) -> None:
        self._environment = environment
        self._stack = stack
        self._reference = reference
        self._publishers: dict[str, Publisher] = {}

    async def publisher(self, target: str) -> Publisher:
        """Raises StreamDoesNotExist where the stream is gone."""
        if target not in self._publishers:
            publisher = self._environment.publisher(target, reference=self._reference)
            self._publishers[target] = await self._stack.enter_async_context(publisher)
        return self._publishers[target]


async def _reference(environment: Environment, stream: str, dry_run: bool) -> str | None:
    """The reference that this edition of the stream is replayed under; None where it never was."""
    edition = await environment.query_offset(EDITION, stream)
    if edition is None:
        if dry_run:
            return None
        edition = secrets.randbits(61)
        await environment.store_offset_verified(EDITION, stream, edition)
    return f"{REFERENCE}-{edition:x}"
