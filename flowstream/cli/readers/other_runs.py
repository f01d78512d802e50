"""A warning when a run starts and another process reads the same streams under its reference.

RabbitMQ's management API lists the consumers of a cluster, with the name and the process of each.
If that API is unreachable, or belongs to another cluster, there is no warning: the run itself
notices when something else stores its offsets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
from anyio import to_thread

from flowstream.cli.configuration.settings import settings
from flowstream.cli.connection.find_management import management_of
from flowstream.cli.connection.management import Management
from flowstream.cli.exit_codes import CommandError
from flowstream.client import Environment, StreamUrl, this_process
from flowstream.connectors import StreamProducer, SuperStreamProducer
from flowstream.errors import FlowstreamError
from flowstream.pipeline import Pipeline
from flowstream.telemetry import Telemetry, Warned

_log = logging.getLogger("flowstream.cli")

LOOKS = (1.0, 6.0)
"""Seconds from the start to the first request, and from that to the second.

A shorter run sends none. The API lists the process of a new consumer within 5 seconds, and drops a
consumer that has ended at once.
"""


async def warn_of_others(
    environment: Environment, url: str, pipeline: Pipeline, telemetry: Telemetry
) -> None:
    """Warn if another process reads the same stream under the pipeline's reference."""
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
        _log.debug(
            "other readers of the streams of %s are unknown: %s", pipeline.name, error,
            extra={"pipeline": pipeline.name},
        )  # fmt: skip


def _warn(
    name: str, reference: str, others: Mapping[str, tuple[str, str]], telemetry: Telemetry
) -> None:
    connection, (stream, process) = min(others.items())
    text = (
        f"another process also reads {stream!r} under the reference {reference!r} "
        f"({process or 'unnamed'}, connection {connection}): both handle every message and "
        "overwrite each other's stored offset. Stop one of them, give one another reference=, or "
        "share a super stream with single_active=True"
    )
    _log.warning(
        "pipeline %r: %s", name, text,
        extra={"pipeline": name, "stream": stream, "reference": reference},
    )  # fmt: skip
    telemetry.emit(Warned(name, stream, text))


def is_shared(producer: StreamProducer) -> bool:
    """Whether several processes may read under the same reference."""
    return isinstance(producer, SuperStreamProducer) and producer.single_active


async def _streams(environment: Environment, producer: StreamProducer) -> frozenset[str]:
    if isinstance(producer, SuperStreamProducer):
        return frozenset(await environment.partitions(producer.stream))
    return frozenset([producer.stream])


async def _others(
    environment: Environment, url: str, streams: frozenset[str], reference: str
) -> dict[str, tuple[str, str]]:
    named = settings().given("management")
    api = await management_of(environment, url, None if named is None else str(named))
    vhost = StreamUrl.parse(url).virtual_host

    def ask(api: Management) -> dict[str, tuple[str, str]]:
        return others_among(api.stream_consumers(vhost), streams, reference, this_process())

    return await to_thread.run_sync(api.answer, ask, abandon_on_cancel=True)


def others_among(
    consumers: Iterable[Mapping[str, Any]], streams: frozenset[str], reference: str, process: str
) -> dict[str, tuple[str, str]]:
    """Connection -> (stream, process) of other processes that read under the reference. Pure."""
    found: dict[str, tuple[str, str]] = {}
    for it in consumers:
        stream, connection = it["queue"]["name"], dict(it["connection_details"]).get("name")
        named = it.get("properties", {}).get("name") == reference
        theirs = it["process"]
        if stream in streams and named and connection and theirs not in (None, process):
            found.setdefault(str(connection), (stream, str(theirs)))
    return found
