"""`flowstream publish`: a file (or standard input) into a stream, confirmed before it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.options import DEFAULT_URL, Json, Url, examples, on_signal, run_async
from flowstream.cli.output import note, plural, print_json, say, short_duration
from flowstream.cli.pace import Pace
from flowstream.cli.progress import Progress
from flowstream.cli.records import STDIN, Format, Source

if TYPE_CHECKING:
    from flowstream.client import Publisher


@dataclass(frozen=True, slots=True)
class Job:
    """What to publish, where to and how."""

    stream: str
    file: str
    format: Format | None
    create: bool
    raw: bool
    rate: float | None
    loop: bool
    url: str


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream publish orders orders.csv --create",
            "flowstream publish events events.ndjson.gz",
            "flowstream publish orders orders.csv --rate 500 --loop",
            "tail -f app.log | flowstream publish logs -",
        )
    )(publish)


def publish(
    stream: Annotated[str, typer.Argument(help="The stream to publish to.")],
    file: Annotated[str, typer.Argument(help="NDJSON, CSV or lines; .gz too; - for stdin.")],
    *,
    format: Annotated[
        Format | None, typer.Option("--format", help="How to cut the file; else by extension.")
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the stream if it does not exist.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Bare bodies instead of AMQP 1.0 messages that hold them."),
    ] = False,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, help="At most this many messages a second.")
    ] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Start over at the end of the file, until Ctrl-C.")
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish a file to a stream: each line or record is one message.

    It ends once the broker has confirmed every message. CSV needs a header; every record becomes a
    JSON object of strings. Sending the same file twice publishes it twice.
    """
    if loop and file == STDIN:
        raise CommandError("--loop needs a file: stdin cannot be read twice", ExitCode.USAGE)
    job = Job(stream, file, format, create, raw, rate, loop, url)
    tally = run_async(_publish, job)
    if json:
        print_json(
            {
                "stream": stream,
                "messages": tally.messages,
                "bytes": tally.bytes,
                "seconds": round(tally.seconds, 3),
            }
        )
    else:
        per_second = tally.messages / max(tally.seconds, 0.001)
        say(
            f"{plural(tally.messages, 'message')} confirmed in {stream} "
            f"({short_duration(tally.seconds)}, {per_second:,.0f}/s)"
        )
    if tally.interrupted and not loop:
        note(f"interrupted: the rest of {file} was not sent")
        raise typer.Exit(ExitCode.FORCED)


async def _publish(job: Job) -> Tally:
    import anyio

    from flowstream.client import Environment

    tally = Tally()
    with Source(job.file, job.format) as source:
        feed = _Feed(source, job)

        def stop() -> None:
            tally.interrupted = True
            feed.stop()

        async with Environment(job.url) as environment:
            if job.create:
                await environment.create_stream(job.stream, exist_ok=True)
            start = time.monotonic()
            async with (
                environment.publisher(job.stream) as publisher,
                anyio.create_task_group() as group,
            ):
                group.start_soon(on_signal, stop)
                await _send_all(job, feed, publisher, tally)
                await publisher.flush()
                group.cancel_scope.cancel()
            tally.seconds = time.monotonic() - start
    return tally


async def _send_all(job: Job, feed: _Feed, publisher: Publisher, tally: Tally) -> None:
    from flowstream.protocol import encode_data

    with Progress(f"publishing to {job.stream}", feed.size) as progress:
        while (bodies := await feed.next()) is not None:
            await publisher.send_many(bodies if job.raw else list(map(encode_data, bodies)))
            tally.messages += len(bodies)
            tally.bytes += sum(map(len, bodies))
            progress.update(feed.position, tally.messages)


class _Feed:
    """Slices of the job's file at the job's rate, until its end or `stop`."""

    def __init__(self, source: Source, job: Job) -> None:
        import anyio

        self._source = source
        self._job = job
        self._slices = self._read()
        self._held: list[bytes] = []
        self._pace = Pace(job.rate, time.monotonic()) if job.rate else None
        self._stopped = anyio.Event()
        self.size = None if job.loop else source.size

    @property
    def position(self) -> int:
        return self._source.position

    def stop(self) -> None:
        self._stopped.set()
        self._source.stop()

    async def next(self) -> list[bytes] | None:
        """The next slice as soon as it is due; None at the end."""
        from anyio import to_thread

        while not self._held:
            read: Callable[[], list[bytes] | None] = lambda: next(self._slices, None)  # noqa: E731
            bodies = await to_thread.run_sync(read)
            if bodies is None or self._stopped.is_set():
                return None
            self._held = bodies
        count = await self._due(len(self._held))
        bodies, self._held = self._held[:count], self._held[count:]
        return bodies or None

    async def _due(self, wanted: int) -> int:
        """How many of `wanted` may go now, after waiting for at least one; 0 once stopped."""
        import anyio

        if self._pace is None:
            return wanted
        while not (due := self._pace.due(time.monotonic())):
            with anyio.move_on_after(self._pace.wait()):
                await self._stopped.wait()
                return 0
        count = min(due, wanted)
        self._pace.sent(count)
        return count

    def _read(self) -> Iterator[list[bytes]]:
        yield from self._source.slices()
        while self._job.loop and not self._stopped.is_set():
            with Source(self._job.file, self._job.format) as again:
                yield from again.slices()
