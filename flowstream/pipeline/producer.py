"""Where messages come from, and how whoever sent them learns that they are settled.

A producer of your own is a small class:

    class Lines(Producer):
        def __init__(self, path: str) -> None:
            self.path = path

        async def run(self, intake: Intake) -> None:
            partition = intake.open(self.path)
            async with await anyio.open_file(self.path, "rb") as file:
                async for line in file:
                    await partition.send([line])      # returns once there is room: the demand

        async def commit(self, stream: str, offset: int) -> None:  # noqa: B027 - a hook
            await anyio.Path(f"{stream}.offset").write_text(str(offset))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flowstream.pipeline.context import RunContext
    from flowstream.pipeline.message import Codec, Message


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a stream holds behind the offset `behind`: so many `messages`.

    `last` is the offset of the stream's last message, None where it has none. `written` is when the
    first message behind the offset was published, in milliseconds since 1970; None where there is
    none, or that is not known. The stream is not `active` where another process reads it.
    """

    behind: int
    last: int | None
    messages: int
    written: int | None = None
    active: bool = True


class Acknowledger(ABC):
    """Told of settled messages, for sources that are acknowledged message by message.

    Sources with offsets need none: their producer's `commit` is told the offset.
    """

    @abstractmethod
    async def acknowledge(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        """The messages are settled as `outcome`: ok, dropped, dead_lettered or discarded.

        Called once for every message, a slice or batch at a time. An exception halts the
        pipeline, and the messages stay unsettled.
        """


class SourcePartition(Protocol):
    """One stream of messages into the pipeline, with its own offsets and watermark."""

    @property
    def stream(self) -> str: ...

    @property
    def next(self) -> int:
        """The offset behind the last one taken in; 0 before the first.

        In a producer that is run again it counts on from where it was.
        """

    @property
    def settled(self) -> int | None:
        """The watermark: every message up to it is settled; None before the first is."""

    async def send(
        self,
        bodies: list[Any],
        *,
        offset: int | None = None,
        offsets: Sequence[int] | None = None,
        timestamp: int = 0,
        tail: int | None = None,
    ) -> None:
        """Deliver `bodies`; returns once all of them are inside `max_in_flight`.

        `offset` is that of the first body (by default the next one, which is at first the one
        behind `committed`), or `offsets` those of all; they must ascend. After `drain` or `close`
        bodies are left to whoever owns the stream next. `timestamp` is the broker's, in
        milliseconds; `tail` the last offset known to be in the stream, where `Producer.backlog`
        does not tell. Bodies that are not bytes
        are taken as decoded data.
        """

    def skip(self, offset: int) -> None:
        """Nothing up to `offset` will be delivered (it was filtered out): let commits pass it."""

    async def drain(self, timeout: float | None = None) -> bool:
        """Settle what was sent, commit, verify, and fence the partition; False when time ran out.

        Open batches are flushed. Afterwards nothing more is committed for the partition.
        """

    def close(self) -> None:
        """The partition's source is gone: nothing more is committed for it."""


class Intake(Protocol):
    """The producer's side of a running pipeline."""

    @property
    def context(self) -> RunContext: ...

    def open(
        self,
        stream: str,
        *,
        codec: Codec | None = None,
        acknowledger: Acknowledger | None = None,
        commits: bool = True,
        committed: int | None = None,
    ) -> SourcePartition:
        """A new partition. `committed` is the offset stored before; `commits=False` stores none."""


class Producer(ABC):
    """The source of a pipeline.

    `resumable`: after an exception `run` may be called again in the same run of the pipeline, and
    goes on at `partition.next` of the partitions it opens then: behind what it sent before.
    """

    resumable: bool = False

    async def open(self, context: RunContext) -> None:  # noqa: B027 - a hook
        """Connect and check, before the first message; an exception ends the run."""

    async def close(self) -> None:  # noqa: B027 - a hook
        """Let go of everything; called once after `open` was, also when that failed."""

    @abstractmethod
    async def run(self, intake: Intake) -> None:
        """Send messages until the source has ended; cancelled when the pipeline stops.

        A FlowstreamError ends the run as it is, and any other exception as the cause of a
        SourceFailed, once what was sent before is handled and committed. Only a producer that is
        `resumable` is run again first, as often as max_restarts allows: another one might begin
        anew and repeat what it sent, or go on and leave out what it had not.
        """

    def reads(self) -> Sequence[str] | None:
        """The streams that it opens partitions for, by name; None where it does not know them yet.

        Called before `open`, for what is declared, and again after it, for what there is.
        """
        return None

    async def commit(self, stream: str, offset: int) -> None:  # noqa: B027 - a hook
        """Store that everything up to `offset` is settled. May be sent without an answer."""

    async def stored_offset(self, stream: str) -> int | None:
        """The offset that is stored now; None where nothing is, or it cannot be told.

        Asked now and then, to see whether somebody else stores offsets for the stream, too.
        """
        return None

    async def is_shared(self, stream: str) -> bool:
        """Has something else stored offsets for the stream since this run did, also the same one?

        Asked together with `stored_offset`; False where it cannot be told.
        """
        return False

    async def verify(self, stream: str, offset: int) -> None:  # noqa: B027 - a hook
        """Make sure that `offset` is stored; raises CommitNotVerified where it is not."""

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        """Is everything that was published delivered? `positions` are the last offsets received."""
        return True

    async def backlog(self, stream: str, behind: int | None) -> Backlog | None:
        """What the stream holds behind the offset; None where that is not known.

        The lag in statistics is told by this. It is asked every few seconds, for each stream that
        has a partition and each of `reads`. `behind` is the last offset taken in (-1: none was), or
        None where the stream has no partition in this run: then the stored offset counts.
        """
        return None

    def describe(self) -> Mapping[str, Any]:
        """What to show of the producer in topologies, without secrets."""
        return {"producer": type(self).__name__}
