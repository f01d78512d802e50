"""What is measured, and beside what: one table, read by everything else here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of process.

    `run` is `module.function` of this package and `options` what it is given. `peers` are the
    scenarios of the same comparison that it is set in relation to. `recorded` is a rate of another
    system that was measured before, on this kind of machine. With `seeds` it runs so often in each
    round, each time with another seed for the hashes of strings. `publisher` is the process beside
    it that sends messages, for latencies.
    """

    name: str
    title: str
    run: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    recorded: tuple[str, int] | None = None
    seeds: int = 1
    publisher: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scenarios that take turns on the same stream.

    `stream` is what it holds: "empty" (a fresh one for each process), "raw" or "amqp" bodies,
    "super" for a super stream of three partitions, "copy" for raw bodies and an empty stream
    beside it, None for no broker at all. `times` multiplies the number of messages. `rate` is
    messages a second where latency is measured; "half" is half of what the slowest can do.
    """

    name: str
    title: str
    scenarios: tuple[Scenario, ...]
    stream: str | None = None
    times: int = 1
    rate: int | str | None = None


def _stream(name: str, title: str, *peers: str, seeds: int = 1, **options: Any) -> Scenario:
    return Scenario(name, title, "flowstream_side.pipeline", options, peers, seeds=seeds)


def _memory(
    name: str, title: str, *peers: str, broadway: int | None = None, **options: Any
) -> Scenario:
    recorded = None if broadway is None else ("Broadway 1.3 on the BEAM", broadway)
    return Scenario(name, title, "memory_side.pipeline", options, peers, recorded)


def _rstream(name: str, title: str, run: str, *peers: str, **options: Any) -> Scenario:
    return Scenario(name, f"rstream: {title}", f"rstream_side.{run}", options, peers)


def _latencies(suffix: str, when: str) -> tuple[Scenario, ...]:
    ours = "flowstream_side.latency_publish"
    peer = f"rstream-{suffix}"
    return (
        Scenario(
            peer,
            f"rstream: a bare callback, {when}",
            "rstream_side.latency_consume",
            publisher="rstream_side.latency_publish",
        ),
        Scenario(
            suffix,
            f"pipeline: the handler of a processor, commits, {when}",
            "flowstream_side.latency_pipeline",
            peers=(peer,),
            publisher=ours,
        ),
        Scenario(
            f"client-{suffix}",
            f"client: the loop over deliveries, {when}",
            "flowstream_side.latency_consume",
            peers=(peer,),
            publisher=ours,
        ),
    )


def _typed(payload: str) -> tuple[Scenario, ...]:
    bare = f"bare-{payload}"
    return (
        Scenario(
            bare,
            f"{payload}: list(map(decode, bodies)) alone",
            "memory_side.decode",
            {"payload": payload},
        ),
        _memory(
            f"memory-{payload}",
            f"{payload}: pipeline in memory, processor",
            bare,
            payload=payload,
            batcher=False,
        ),
        _stream(
            payload,
            f"{payload}: pipeline, processor, commits",
            bare,
            payload=payload,
            batcher=False,
        ),
    )


PUBLISH = Comparison(
    "publish",
    "Publish",
    stream="empty",
    scenarios=(
        _rstream("rstream-publish-unconfirmed", "publish raw, unconfirmed", "publish"),
        _rstream("rstream-publish", "publish raw, confirm callback", "publish", confirmed=True),
        Scenario(
            "publish-raw",
            "publish raw, every message confirmed",
            "flowstream_side.publish",
            peers=("rstream-publish", "rstream-publish-unconfirmed"),
        ),
        _rstream(
            "rstream-publish-amqp-unconfirmed", "publish AMQP, unconfirmed", "publish", amqp=True
        ),
        _rstream(
            "rstream-publish-amqp",
            "publish AMQP, confirm callback",
            "publish",
            amqp=True,
            confirmed=True,
        ),
        Scenario(
            "publish-amqp",
            "publish AMQP, every message confirmed",
            "flowstream_side.publish",
            {"amqp": True},
            ("rstream-publish-amqp", "rstream-publish-amqp-unconfirmed", "publish-raw"),
        ),
    ),
)

CONSUME = Comparison(
    "consume",
    "Consume raw bodies",
    stream="raw",
    scenarios=(
        _rstream("rstream-consume", "consume raw, empty callback, nothing stored", "consume"),
        _rstream("rstream-consume-stored", "consume raw, stored offsets", "consume", store=True),
        Scenario(
            "client",
            "client: consume raw, a list for each chunk, nothing stored",
            "flowstream_side.consume",
            peers=("rstream-consume",),
        ),
        _stream(
            "batcher-only",
            "pipeline: batches of 1000, no processor, commits",
            "rstream-consume",
            processor=None,
        ),
        _stream(
            "processor-only",
            "pipeline: processor, commits",
            "rstream-consume",
            batcher=False,
        ),
        _stream(
            "processor-batcher",
            "pipeline: processor and batches of 1000, commits",
            "rstream-consume",
            "rstream-consume-stored",
        ),
        _stream(
            "slices",
            "pipeline: handler of whole slices, commits",
            "rstream-consume",
            processor="slices",
            batcher=False,
        ),
        _stream(
            "threads",
            "pipeline: processor and batcher as plain def, in threads",
            "processor-batcher",
            processor="def",
        ),
        _stream(
            "keyed",
            "pipeline: processor, 4 workers, 16 skewed keys",
            "processor-only",
            seeds=4,
            batcher=False,
            key="raw",
            workers=4,
        ),
        _stream(
            "metrics",
            "pipeline: processor and batches, with metrics and page",
            "processor-batcher",
            metrics=True,
        ),
    ),
)

AMQP = Comparison(
    "amqp",
    "Consume AMQP 1.0 messages",
    stream="amqp",
    scenarios=(
        _rstream(
            "rstream-amqp", "consume AMQP, empty callback, nothing stored", "consume", amqp=True
        ),
        Scenario(
            "client-amqp",
            "client: consume AMQP, the payloads of each chunk, nothing stored",
            "flowstream_side.consume",
            {"amqp": True},
            ("rstream-amqp",),
        ),
        _stream(
            "batcher-only-amqp",
            "pipeline, AMQP: batches of 1000, no processor, commits",
            "rstream-amqp",
            processor=None,
        ),
        _stream(
            "processor-batcher-amqp",
            "pipeline, AMQP: processor and batches of 1000, commits",
            "rstream-amqp",
        ),
    ),
)

TYPED = Comparison(
    "typed",
    "Decode bodies to a type",
    stream="raw",
    scenarios=(
        *_typed("dict"),
        _stream(
            "keyed-dict",
            "dict: pipeline, 4 workers, 16 skewed keys",
            "dict",
            seeds=2,
            payload="dict",
            batcher=False,
            key="data",
            workers=4,
        ),
        *_typed("pydantic"),
        *_typed("msgspec"),
    ),
)

SINK = Comparison(
    "sink",
    "Copy one stream to another",
    stream="copy",
    scenarios=(
        _rstream("rstream-copy", "copy a stream with send_batch(1000), confirmed", "copy"),
        Scenario(
            "sink",
            "pipeline: copy a stream with StreamSink, confirmed, commits",
            "flowstream_side.copy",
            peers=("rstream-copy",),
        ),
    ),
)


def _once(kind: str, title: str, **options: Any) -> tuple[Scenario, Scenario]:
    """A sink at least once, and exactly once beside it."""
    name = "-".join(["sink", kind, *(f"{value}" for value in options.values())])
    run, options = "sink_side.written", {"kind": kind, **options}
    return (
        Scenario(f"{name}-repeats", f"{title}, at least once", run, options | {"once": False}),
        Scenario(
            f"{name}-once",
            f"{title}, exactly once",
            run,
            options | {"once": True},
            (f"{name}-repeats",),
        ),
    )


ONCE = Comparison(
    "once",
    "What exactly once costs",
    stream="raw",
    scenarios=(
        *_once("sqlite", "orders into SQLite, batches of 1000"),
        *_once("postgres", "orders into PostgreSQL by COPY, batches of 1000"),
        *_once("postgres", "the same, 4 workers", workers=4),
        *_once("files", "orders into files of 1000 lines"),
    ),
)

ONCE_STREAM = Comparison(
    "once-stream",
    "What exactly once costs from stream to stream",
    stream="copy",
    scenarios=(
        Scenario("copy-repeats", "copy a stream, at least once", "flowstream_side.copy"),
        Scenario(
            "copy-once",
            "copy a stream, exactly once",
            "flowstream_side.copy",
            {"once": True},
            ("copy-repeats",),
        ),
    ),
)

SUPER = Comparison(
    "super",
    "Consume a super stream of three partitions",
    stream="super",
    scenarios=(
        _rstream("rstream-super", "super stream, empty callback, nothing stored", "consume_super"),
        _stream(
            "super-stream",
            "pipeline, super stream: processor and batches of 1000, commits",
            "rstream-super",
            partitioned=True,
        ),
    ),
)

MEMORY = Comparison(
    "memory",
    "In memory, without a broker",
    scenarios=(
        _memory("memory-processor", "in memory: processor", broadway=720_000, batcher=False),
        _memory("memory-batcher-only", "in memory: batches of 1000, no processor", processor=None),
        _memory("memory-batcher", "in memory: processor and batches of 1000", broadway=600_000),
        _memory(
            "memory-json", "in memory: the same, JSON as dict", broadway=252_000, payload="dict"
        ),
        _memory(
            "memory-filter",
            "in memory: a processor that drops every other message, batches of 1000",
            "memory-batcher",
            processor="filter",
        ),
        _memory(
            "memory-route",
            "in memory: a processor that sends each message to one of two batchers of 1000",
            "memory-batcher",
            processor="route",
        ),
    ),
)

RESIDENT = Comparison(
    "resident",
    "Memory over four times as many messages",
    stream="raw",
    times=4,
    scenarios=(
        _stream(
            "resident",
            "pipeline, memory: processor and batches of 1000, commits",
            sample_memory=True,
        ),
    ),
)

LATENCY = Comparison(
    "latency",
    "Latency from publishing to the handler, at 1,000 messages a second",
    stream="empty",
    rate=1_000,
    scenarios=_latencies("latency", "at 1,000 a second"),
)

LOADED = Comparison(
    "loaded",
    "Latency under half of the load that the slowest can take",
    stream="empty",
    rate="half",
    scenarios=_latencies("loaded", "under half of the load"),
)

COMPARISONS = (
    PUBLISH, CONSUME, AMQP, TYPED, SINK, ONCE, ONCE_STREAM, SUPER, MEMORY, RESIDENT, LATENCY,
    LOADED,
)  # fmt: skip
