"""What `flowstream check --connect` asks the broker: streams, permissions and stored offsets.

Nothing is consumed, published or stored. Reading is tested by reading the end of a stream, and
publishing by declaring a publisher that sends nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from flowstream.cli.connection.connect import Connection
from flowstream.cli.diagnosis.findings import Finding, bad, ok, warn
from flowstream.cli.output.progress import doing
from flowstream.cli.pipelines.stream_topology import StreamTopology, topology_of
from flowstream.cli.readers.position import lost
from flowstream.client import Environment, StreamBacklog
from flowstream.connectors import StreamProducer, SuperStreamProducer, beyond
from flowstream.errors import FlowstreamError, StreamDoesNotExist
from flowstream.pipeline import Pipeline
from flowstream.texts import plural

BROKER = "broker"


async def ask(broker: Connection, pipelines: list[Pipeline]) -> list[Finding]:
    """All findings. A broker that cannot be reached is one finding."""
    findings: list[Finding] = []
    try:
        async with broker.opened(name="flowstream check") as environment:
            server = await environment.server_info()
            version = server.properties.get("version", "of unknown version")
            where = str(server.address)
            findings.append(ok(BROKER, "connection", f"RabbitMQ {version} at {where}"))
            for pipeline in pipelines:
                with doing(f"checking {pipeline.name}"):
                    findings += [finding async for finding in _pipeline(environment, pipeline)]
    except FlowstreamError as error:
        findings.append(bad(BROKER, "connection", error))
    return findings


async def _pipeline(environment: Environment, pipeline: Pipeline) -> AsyncIterator[Finding]:
    streams = topology_of(pipeline)
    if isinstance(pipeline.producer, StreamProducer):
        async for finding in _source(environment, pipeline.producer, streams):
            yield finding
    for stream in streams.sinks:
        async for finding in _sink(environment, streams, stream):
            yield finding
    if streams.dead_letters is not None:
        yield await _dead_letters(environment, streams.pipeline, streams.dead_letters)


async def _sink(
    environment: Environment, streams: StreamTopology, stream: str
) -> AsyncIterator[Finding]:
    """Whether the sink's stream is of the right kind, and its partitions accept publishers."""
    name, keyed = streams.pipeline, stream in streams.super_streams
    try:
        partitions = await environment.partitions(stream)
    except StreamDoesNotExist:
        partitions = []
    except FlowstreamError as error:
        yield bad(name, "publish", f"{stream}: {error}")
        return
    if partitions and not keyed and not await environment.stream_exists(stream):
        text = f"publishes to {stream}, which is a super stream"
        yield bad(name, "stream", text, "give StreamSink key=, which selects the partition")
        return
    if keyed and not partitions:
        text = f"publishes to the super stream {stream}, which does not exist"
        remedy = f"flowstream super-streams create {stream}"
        if await environment.stream_exists(stream):
            text = f"publishes by key to {stream}, which is a stream, not a super stream"
            remedy = "omit key= of StreamSink"
        yield bad(name, "stream", text, remedy)
        return
    if keyed:
        yield ok(name, "stream", f"super stream {stream}: {', '.join(partitions)}")
    for each in partitions if keyed else [stream]:
        yield await _publishes(environment, name, each)


async def _dead_letters(environment: Environment, name: str, stream: str) -> Finding:
    try:
        if await environment.stream_exists(stream):
            return await _publishes(environment, name, stream)
    except FlowstreamError as error:
        return bad(name, "publish", f"dead letters to {stream}: {error}")
    return ok(name, "stream", f"dead letters: {stream} does not exist; a run creates it")


async def _source(
    environment: Environment, producer: StreamProducer, streams: StreamTopology
) -> AsyncIterator[Finding]:
    name = streams.pipeline
    partitions = [producer.stream]
    if isinstance(producer, SuperStreamProducer):
        try:
            partitions = await environment.partitions(producer.stream)
        except FlowstreamError as error:
            yield bad(name, "stream", f"reads the super stream {producer.stream}: {error}")
            return
        yield ok(name, "stream", f"super stream {producer.stream}: {', '.join(partitions)}")
        for stream in {*streams.sinks, streams.dead_letters} & {*partitions}:
            yield bad(
                name, "streams", f"it reads the partition {stream} and publishes to it: an endless "
                "loop", "publish to another stream",
            )  # fmt: skip
    for stream in partitions:
        try:
            first = (await environment.stream_stats(stream)).first_offset
            stored = await environment.query_beginning(streams.reference, stream)
            behind = -1 if stored is None else stored
            backlog = await environment.lag_probe(stream, **streams.filter_options).look(behind)
        except StreamDoesNotExist:
            yield await _missing(environment, name, stream)
        except FlowstreamError as error:
            yield bad(name, "read", f"{stream}: {error}")
        else:
            yield ok(name, "read", f"{stream}: {_extent(first, backlog.last)}")
            yield _offset(producer, streams, stream, stored=stored, first=first, backlog=backlog)


def _offset(
    producer: StreamProducer,
    streams: StreamTopology,
    stream: str,
    *,
    stored: int | None,
    first: int | None,
    backlog: StreamBacklog,
) -> Finding:
    """Where a run would start, and whether messages before that are lost."""
    name, check, last = streams.pipeline, "offset", backlog.last
    if stored is None:
        return ok(name, check, f"{stream}: no offset is stored; a run starts at {producer.offset}")
    gone = lost(stored, first)
    reset = f"flowstream offsets reset {streams.reference} {stream} --to first"
    text = f"{stream}: stored {stored:,}, {backlog.messages:,} behind the end"
    if gone and producer.on_truncated == "skip":
        return warn(name, check, f"{text}; {plural(gone, 'truncated message')} will be skipped")
    if gone:
        remedy = (
            f'to continue without them: {reset}, or on_truncated="skip"; a longer retention would '
            "keep them"
        )
        were = f"{plural(gone, 'message')} {'was' if gone == 1 else 'were'}"
        return bad(name, check, f"{text}; {were} truncated", remedy)
    if beyond(stream, streams.reference, stored=stored, first=first, last=last):
        end = "the stream is empty" if last is None else f"the stream ends at {last:,}"
        remedy = f"if the stream was deleted and created again: {reset}"
        return warn(name, check, f"{stream}: stored {stored:,}, and {end}", remedy)
    return ok(name, check, text)


async def _publishes(environment: Environment, name: str, stream: str) -> Finding:
    try:
        async with environment.publisher(stream):
            return ok(name, "publish", f"{stream}: allowed")
    except StreamDoesNotExist:
        return bad(name, "stream", f"publishes to {stream}, which does not exist", _create(stream))
    except FlowstreamError as error:
        return bad(name, "publish", f"{stream}: {error}")


async def _missing(environment: Environment, name: str, stream: str) -> Finding:
    try:
        partitions = await environment.partitions(stream)
    except FlowstreamError:
        return bad(name, "stream", f"reads {stream}, which does not exist", _create(stream))
    text = f"reads {stream}, which is a super stream: {', '.join(partitions)}"
    return bad(name, "stream", text, "use SuperStreamProducer, which reads all partitions")


def _create(stream: str) -> str:
    return f"flowstream streams create {stream}"


def _extent(first: int | None, last: int | None) -> str:
    return "empty" if first is None or last is None else f"offsets {first:,} to {last:,}"
