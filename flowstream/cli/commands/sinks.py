"""`flowstream sinks init|list|reset`: what sinks write to, and what they have written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import streams_of
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say
from flowstream.cli.output.progress import doing
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.options import confirm
from flowstream.cli.pipelines.load import load_pipelines
from flowstream.cli.pipelines.sink_records import Found, sinks_of
from flowstream.cli.pipelines.stream_topology import StreamTopology, topology_of
from flowstream.cli.readers.active_readers import ReaderQuery, refuse_running
from flowstream.client import Address, Environment
from flowstream.connectors import Published, published
from flowstream.errors import ConnectionFailed, FlowstreamError, StreamDoesNotExist
from flowstream.pipeline import Pipeline
from flowstream.texts import plural

RANGES = 3
"""Ranges of offsets that a table shows."""


def _found(targets: list[str]) -> list[Found]:
    return [*sinks_of([*load_pipelines(targets).values()])]


# -- init


def init(targets: list[str], *, json: bool) -> None:
    sinks = _found(targets)
    rows = []
    for sink in sinks:
        if sink.record is not None:
            with doing(f"making {sink.destination}"):
                sink.record.initialize()
            rows.append(
                {"pipeline": sink.pipeline.name, "sink": sink.name, "ready": sink.destination}
            )
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["pipeline", "sink", "ready"], empty="no sink needs anything to be made")


# -- list


def list_(targets: list[str], *, url: str, json: bool) -> None:
    pipelines = [*load_pipelines(targets).values()]
    sinks = [*sinks_of(pipelines)]
    known = run_async(_ask_broker, url, pipelines, sinks)
    rows = [
        row
        for sink in sinks
        for row in (_rows(sink, known) if sink.once is None else _published_rows(sink, known))
    ]
    for row in rows:
        row["committed"] = known.committed.get((row["pipeline"], row["stream"]))
    if json:
        print_json(rows)
        return
    columns = ["pipeline", "sink", "guarantee", "destination"]
    columns += ["stream", "written", "last_written", "committed"]
    print_rows(
        [row | {"written": _text(row)} for row in rows],
        columns,
        empty="these pipelines have no sinks",
    )


def _rows(sink: Found, known: Known) -> Iterator[dict[str, Any]]:
    """A row for each stream that something is written of, or one without a stream."""
    state, written = "no record", None
    try:
        written = _written(sink)
        if sink.record is not None:
            state = "not made" if written is None else "ready"
    except FlowstreamError as error:  # one sink must not hide the others
        note(f"{sink.pipeline.name}, {sink.name}: {error}")
        state = "cannot be read"
    streams: list[tuple[str | None, Any]] = [*(written or {}).items()]
    if not streams:
        reads = known.sources.get(sink.pipeline.name) or topology_of(sink.pipeline).reads
        streams = [(stream, None) for stream in reads or (None,)]
    for stream, done in streams:
        ranges = None if done is None else [*done]
        yield _about(sink) | {
            "state": state,
            "stream": stream,
            "written": ranges,
            "last_written": ranges[-1][1] if ranges else None,
        }


def _published_rows(sink: Found, known: Known) -> Iterator[dict[str, Any]]:
    """A row for each pair of a source stream and a target stream."""
    base = _about(sink) | {"written": None, "last_written": None}
    pairs = known.published.get((sink.pipeline.name, sink.name))
    if not pairs:
        state = "not known" if pairs is None else "ready"
        yield base | {"state": state, "stream": (*topology_of(sink.pipeline).reads, None)[0]}
    for it in pairs or ():
        yield base | {
            "destination": f"the stream {it.target!r}",
            "reference": it.reference,
            "state": "ready",
            "stream": it.source,
            "last_written": it.last_offset,
            "last_publishing_id": it.last_publishing_id,
        }


def _about(sink: Found) -> dict[str, Any]:
    return {
        "pipeline": sink.pipeline.name,
        "sink": sink.name,
        "guarantee": sink.guarantee,
        "destination": sink.destination,
        "reference": sink.reference,
        "last_publishing_id": None,
    }


def _written(sink: Found) -> Mapping[str, Any] | None:
    """The offsets that are written, by stream. Raises what keeps them from being read."""
    with doing(f"reading what is written to {sink.destination}"):
        return sink.written()


@dataclass(frozen=True, slots=True)
class Known:
    """What the broker knows: the streams that pipelines read, with their stored offsets; and what
    sinks have published, by pipeline and sink.

    What is not known is left out, and a note says why.
    """

    sources: dict[str, list[str]] = field(default_factory=dict)
    committed: dict[tuple[str, str], int | None] = field(default_factory=dict)
    published: dict[tuple[str, str], list[Published]] = field(default_factory=dict)


async def _ask_broker(url: str, pipelines: Sequence[Pipeline], sinks: Sequence[Found]) -> Known:
    """What the broker knows. What is written to other places can be shown without it."""
    known = Known()
    reading = [it for it in pipelines if topology_of(it).reads]
    if not reading:
        return known
    try:
        async with connect(url) as environment:
            for pipeline in reading:
                theirs = [it for it in sinks if it.pipeline is pipeline and it.once is not None]
                await _ask_about(environment, topology_of(pipeline), theirs, known)
    except ConnectionFailed as error:
        note(f"committed offsets, and what is published to streams, are not known: {error}")
    return known


async def _ask_about(
    environment: Environment, topology: StreamTopology, sinks: Sequence[Found], known: Known
) -> None:
    """Add what the broker knows about one pipeline, and its sinks that publish exactly once."""
    sources = known.sources[topology.pipeline] = []
    for name in topology.reads:
        try:
            sources += await streams_of(environment, name)
        except CommandError as error:
            note(f"{topology.pipeline}: {error}")
    for stream in sources:
        stored = await environment.query_offset(topology.reference, stream)
        known.committed[topology.pipeline, stream] = stored
    for sink in sinks:
        assert sink.once is not None
        try:
            targets = await streams_of(environment, sink.once.stream)
            found = await published(environment, sink.once.reference, sources, targets)
        except (CommandError, FlowstreamError) as error:
            note(f"{topology.pipeline}, {sink.name}: {error}")
        else:
            known.published[topology.pipeline, sink.name] = found


def _text(row: Mapping[str, Any]) -> str | None:
    """`0-1041, 1043` of ranges, with the first ones left out where there are many."""
    ranges, state = row["written"], row["state"]
    if ranges is None:
        if row["last_publishing_id"]:
            return f"up to {row['last_written']}"
        return None if state in {"no record", "ready"} else str(state)
    more = len(ranges) - RANGES
    first = [f"{plural(more, 'more range')}"] if more > 0 else []
    last = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[-RANGES:]]
    return ", ".join(first + last)


# -- reset


def reset(
    targets: list[str],
    *,
    sink: str | None,
    stream: str | None,
    yes: bool,
    force: bool,
    http: list[Any] | None,
    management: str | None,
    watch: float,
    url: str,
    json: bool,
) -> None:
    chosen = _chosen(targets, sink)
    if not force:
        monitors = tuple(Address(*each) for each in http or ())
        for pipeline in load_pipelines(targets).values():
            run_async(_refuse_while_running, url, pipeline, monitors, management, watch)
    forgotten = [
        (found, of) for found in chosen for of, done in (_written(found) or {}).items() if done
    ]
    if stream is not None:
        named: Collection[str] = [stream]
        if stream not in {of for _, of in forgotten}:
            named = run_async(_partitions, url, stream)
        forgotten = [(found, of) for found, of in forgotten if of in named]
    rows = [_row(found, of) for found, of in forgotten]
    if not json:
        columns = ["pipeline", "sink", "destination", "reference", "stream"]
        of_it = "" if stream is None else f" of {stream!r}"
        print_rows(rows, columns, empty=f"nothing is written{of_it}, so there is nothing to forget")
    if forgotten:
        note("what was written of these streams stays, and is written again when it comes again")
        confirm("Forget that it was written?", yes=yes)
        for found, of in forgotten:
            assert found.record is not None
            found.record.forget(str(found.reference), of)
    if json:
        print_json([row | {"forgotten": True} for row in rows])
    elif forgotten:
        say(f"forgotten: {plural(len(forgotten), 'record')}")


def _chosen(targets: list[str], name: str | None) -> list[Found]:
    sinks = [it for it in _found(targets) if name in {None, it.name}]
    for it in sinks:
        if it.once is not None:
            text = (
                f"{it.name}: brokers keep what was published to {it.once.stream!r} under the "
                f"reference {it.once.reference!r}, and no command can delete that; to publish "
                f'again, give the sink another one, such as reference="{it.once.reference}-2"'
            )
            if name is not None:
                raise CommandError(f"--sink {text}", ExitCode.USAGE)
            note(text)
    chosen = [it for it in sinks if it.record is not None]
    if name is not None and not chosen:
        known = [it.name for it in _found(targets) if it.record is not None]
        raise CommandError(
            f"--sink {name}: no such sink keeps a record of what it has written; "
            f"{'there are ' + ', '.join(known) if known else 'these pipelines have none'}",
            ExitCode.USAGE,
        )
    return chosen


def _row(found: Found, stream: str) -> dict[str, Any]:
    return {
        "pipeline": found.pipeline.name,
        "sink": found.name,
        "destination": found.destination,
        "reference": found.reference,
        "stream": stream,
    }


async def _partitions(url: str, name: str) -> Collection[str]:
    """The partitions of a super stream, whose records have their names; empty of another stream."""
    async with connect(url) as environment:
        try:
            return await environment.partitions(name)
        except StreamDoesNotExist:
            return ()


async def _refuse_while_running(
    url: str,
    pipeline: Pipeline,
    monitors: tuple[Address, ...],
    management: str | None,
    watch: float,
) -> None:
    topology = topology_of(pipeline)
    async with connect(url) as environment:
        for name in topology.reads:
            try:
                streams = tuple(await streams_of(environment, name))
            except CommandError as error:
                raise CommandError(
                    f"{error}; --force forgets without looking for a run of {topology.pipeline}",
                    error.exit_code,
                ) from error
            query = ReaderQuery(
                url, topology.reference, name, streams, monitors,
                management=management, watch=watch,
            )  # fmt: skip
            await refuse_running(environment, query, "a crash may make it write messages twice")
