"""Sources of messages: what a producer sends, and what it is called with when messages settle.

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
    """The number of `messages` that a stream holds behind the offset `behind`.

    `last` is the offset of the stream's last message, None if it is empty. `written` is when the
    first message behind the offset was published, in milliseconds since 1970; None if there is no
    such message, or the time is not known. `active` is False if another process reads the stream.
    """

    behind: int
    last: int | None
    messages: int
    written: int | None = None
    active: bool = True


class Acknowledger(ABC):
    """Called with settled messages, for sources that are acknowledged message by message.

    Sources with offsets need none: `commit` of their producer gets the offset.
    """

    @abstractmethod
    async def acknowledge(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        """The messages are settled as `outcome`: ok, dropped, dead_lettered or discarded.

        Called once for each message, with a slice or batch at a time. An exception halts the
        pipeline, and the messages stay unsettled.
        """


class SourcePartition(Protocol):
    """One stream of messages into the pipeline, with its own offsets and watermark."""

    @property
    def stream(self) -> str: ...

    @property
    def next(self) -> int:
        """The offset that the next body gets: the one behind the last message that was taken in,
        before the first message the one behind `committed`, and 0 if nothing is stored.

        If the producer is run again, it continues from its last value.
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

        `offset` is that of the first body (by default `next`), or `offsets` are those of all
        bodies; they must ascend. After `drain` or `close` bodies are ignored: they belong to the
        next owner of the stream. `timestamp` is the broker's, in milliseconds; `tail` is the last
        offset known to be in the stream, if `Producer.backlog` does not report it. Bodies that are
        not bytes are taken as decoded data.
        """

    def skip(self, offset: int) -> None:
        """Let commits pass `offset`: the messages up to it were filtered out and will not come."""

    async def drain(self, timeout: float | None = None, *, lost: bool = False) -> bool:
        """Settle what was sent, commit, verify, and fence the partition; False if the time ran out.

        Open batches are flushed. Afterwards no offset of the partition is committed. With `lost`
        the next owner may have begun already, so that a commit that fails is soon given up.
        """

    def close(self) -> None:
        """The partition's source does not exist any longer: none of its offsets is committed."""


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
        """A new partition. `committed` is its stored offset; `commits=False` stores none."""


class Producer(ABC):
    """The source of a pipeline.

    If it is `resumable`, `run` may be called again after an exception, in the same run of the
    pipeline. It then continues at `partition.next` of the partitions that it opens.
    """

    resumable: bool = False

    async def open(self, context: RunContext) -> None:  # noqa: B027 - a hook
        """Connect and check, before the first message; an exception ends the run."""

    async def close(self) -> None:  # noqa: B027 - a hook
        """Close everything. Called once after `open`, even if that failed."""

    @abstractmethod
    async def run(self, intake: Intake) -> None:
        """Send messages until the source has ended; cancelled when the pipeline stops.

        An exception ends the run once all messages sent before are handled and committed: a
        FlowstreamError as it is, any other as the cause of a SourceFailed. Only a `resumable`
        producer is run again first, as often as max_restarts allows. Others might start again and
        repeat messages, or continue and leave some out.
        """

    def reads(self) -> Sequence[str] | None:
        """The names of the streams that it reads; None if it does not know them yet.

        Called before `open` for the declared streams, and after it for the actual ones.
        """
        return None

    async def commit(self, stream: str, offset: int) -> None:  # noqa: B027 - a hook
        """Store `offset`: all messages up to it are settled. It need not wait for an answer."""

    async def stored_offset(self, stream: str) -> int | None:
        """The stored offset; None if none is stored, or it is not known.

        Called regularly, to detect whether something else stores offsets for the stream.
        """
        return None

    async def is_shared(self, stream: str) -> bool:
        """Whether something else has stored an offset, even the same one, since this run did.

        Called together with `stored_offset`; False if it is not known.
        """
        return False

    async def verify(self, stream: str, offset: int) -> None:  # noqa: B027 - a hook
        """Make sure that `offset` is stored; raise CommitNotVerified if it is not."""

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        """Whether all published messages came; `positions` are the last offsets received."""
        return True

    async def backlog(self, stream: str, behind: int | None) -> Backlog | None:
        """What the stream holds behind the offset; None if it is not known.

        It gives the lag in statistics. It is called every few seconds for each stream that has a
        partition and each of `reads`. `behind` is the last offset taken in (-1: no message yet), or
        None if the stream has no partition in this run: then the stored offset counts.
        """
        return None

    def describe(self) -> Mapping[str, Any]:
        """What to show of the producer in topologies, without secrets."""
        return {"producer": type(self).__name__}
