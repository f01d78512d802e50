"""What is compared with what: one table, read by the harness and by the worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """`ours` against `peer` (both `module.function` in this package), or against a figure.

    `figure` is messages per second measured for another system on this kind of machine, where
    that system cannot be run beside us; `target` is the least ratio that is aimed at. `stream`
    says what the stream must hold: nothing ("empty"), or a million messages ("raw", "amqp").
    """

    name: str
    title: str
    ours: str
    peer: str | None
    peer_title: str
    target: float
    stream: str | None = None
    figure: int | None = None


BROADWAY = "Broadway 1.3 on the BEAM"

LEAST_WITH_METRICS = 0.97
"""Metrics and the live page's board may cost 3 %."""

COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "publish-raw",
        "publish, every message confirmed, raw bodies",
        "flowstream_side.publish_raw",
        "rstream_side.publish_raw",
        "rstream send_batch(1000), unconfirmed",
        1.0,
        stream="empty",
    ),
    Comparison(
        "publish-amqp",
        "publish, every message confirmed, AMQP 1.0",
        "flowstream_side.publish_amqp",
        "rstream_side.publish_amqp",
        "rstream send_batch(1000), unconfirmed",
        1.0,
        stream="empty",
    ),
    Comparison(
        "pipeline-raw",
        "whole pipeline, batches of 1000, commits, raw",
        "flowstream_side.pipeline",
        "rstream_side.consume_raw",
        "rstream consume, empty callback",
        1.0,
        stream="raw",
    ),
    Comparison(
        "pipeline-amqp",
        "whole pipeline, batches of 1000, commits, AMQP 1.0",
        "flowstream_side.pipeline",
        "rstream_side.consume_amqp",
        "rstream consume, AMQP, empty callback",
        3.0,
        stream="amqp",
    ),
    Comparison(
        "memory-processor",
        "in memory, no batcher",
        "memory_side.processor",
        None,
        BROADWAY,
        1.0,
        figure=650_000,
    ),
    Comparison(
        "memory-batcher",
        "in memory, one batcher of 1000",
        "memory_side.batcher",
        None,
        BROADWAY,
        1.0,
        figure=480_000,
    ),
    Comparison(
        "memory-json",
        "in memory, JSON decode, one batcher of 1000",
        "memory_side.json_batcher",
        None,
        BROADWAY,
        1.0,
        figure=235_000,
    ),
    Comparison(
        "metrics-memory",
        "metrics, by CPU time: in memory, one batcher of 1000",
        "metrics_side.memory",
        "metrics_side.memory_bare",
        "the same without metrics",
        LEAST_WITH_METRICS,
    ),
    Comparison(
        "metrics-pipeline",
        "metrics, by CPU time: whole pipeline, raw",
        "metrics_side.pipeline",
        "metrics_side.pipeline_bare",
        "the same without metrics",
        LEAST_WITH_METRICS,
        stream="raw",
    ),
)

BODY_SIZE = 100


def body(number: int) -> bytes:
    """A JSON object of exactly `BODY_SIZE` bytes."""
    head = b'{"order_id":%8d,"customer_id":%6d,"amount":"%05d.99","note":"' % (
        number,
        number % 23_570,
        number % 99_999,
    )
    return head.ljust(BODY_SIZE - 2, b"x") + b'"}'


def bodies(count: int) -> list[bytes]:
    """`count` different bodies (ten thousand of them, over and over: memory is not measured)."""
    distinct = [body(number) for number in range(min(count, 10_000))]
    return [distinct[number % len(distinct)] for number in range(count)]
