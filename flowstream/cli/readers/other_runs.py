"""Does another process read the same streams under the same reference? Asked when a run starts.

RabbitMQ's management API lists the consumers of a cluster, each with the name under which it reads
and the process that it belongs to. Where that API is not reachable, or is that of another cluster,
nothing is said: the run itself sees when something else stores its offsets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from flowstream.cli.configuration.settings import settings
from flowstream.cli.connection.management import Management, management_of
from flowstream.cli.exit_codes import CommandError
from flowstream.client import StreamUrl, this_process
from flowstream.connectors import StreamProducer, SuperStreamProducer
from flowstream.errors import FlowstreamError
from flowstream.telemetry import Telemetry, Warned

if TYPE_CHECKING:
    from flowstream.client import Environment
    from flowstream.pipeline import Pipeline

log = logging.getLogger("flowstream.cli")

LOOKS = (1.0, 6.0)
"""Seconds from the start, or from the look before: a run that is over by then asks nobody. The API
tells within 5 seconds whose a new consumer is, and at once that one has gone."""


async def warn_of_others(
    environment: Environment, url: str, pipeline: Pipeline, telemetry: Telemetry
) -> None:
    """Warn where another process reads what the pipeline reads, under its reference."""
    producer = pipeline.producer
    if not isinstance(producer, StreamProducer) or is_shared(producer):
        return
    reference = producer.reference or pipeline.name
    try:
        streams = await _streams(environment, producer)
        for seconds in LOOKS:
            await anyio.sleep(seconds)
            others = await _others(environment, url, streams, reference)
            if others:
                _warn(pipeline.name, reference, others, telemetry)
                return
    except (CommandError, FlowstreamError) as error:
        log.debug(
            "who else reads the streams of %s is not known: %s", pipeline.name, error,
            extra={"pipeline": pipeline.name},
        )  # fmt: skip


def _warn(
    name: str, reference: str, others: Mapping[str, tuple[str, str]], telemetry: Telemetry
) -> None:
    connection, (stream, process) = min(others.items())
    text = (
        f"another process reads {stream!r} under the reference {reference!r}, too "
        f"({process or 'unnamed'}, connection {connection}): both handle every message, and "
        "overwrite each other's stored offset. Stop one of them, give one another reference=, or "
        "share a super stream with single_active=True"
    )
    log.warning(
        "pipeline %r: %s", name, text,
        extra={"pipeline": name, "stream": stream, "reference": reference},
    )  # fmt: skip
    telemetry.emit(Warned(name, stream, text))


def is_shared(producer: StreamProducer) -> bool:
    """Whether other processes are meant to read under the same reference."""
    return isinstance(producer, SuperStreamProducer) and producer.single_active


async def _streams(environment: Environment, producer: StreamProducer) -> frozenset[str]:
    if isinstance(producer, SuperStreamProducer):
        return frozenset(await environment.partitions(producer.stream))
    return frozenset([producer.stream])


async def _others(
    environment: Environment, url: str, streams: frozenset[str], reference: str
) -> dict[str, tuple[str, str]]:
    from anyio import to_thread

    named = settings().given("management")
    api = await management_of(environment, url, None if named is None else str(named))
    vhost = StreamUrl.parse(url).virtual_host

    def ask(api: Management) -> dict[str, tuple[str, str]]:
        return others_among(api.stream_consumers(vhost), streams, reference, this_process())

    return await to_thread.run_sync(api.answer, ask, abandon_on_cancel=True)


def others_among(
    consumers: Iterable[Mapping[str, Any]], streams: frozenset[str], reference: str, process: str
) -> dict[str, tuple[str, str]]:
    """Connections of other processes -> (stream, process) that they read under it. Pure."""
    found: dict[str, tuple[str, str]] = {}
    for it in consumers:
        stream, connection = it["queue"]["name"], dict(it["connection_details"]).get("name")
        named = it.get("properties", {}).get("name") == reference
        theirs = it["process"]
        if stream in streams and named and connection and theirs not in (None, process):
            found.setdefault(str(connection), (stream, str(theirs)))
    return found
