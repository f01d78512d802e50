"""Dashboard of the streams and partitions of a pipeline: offsets, lag, commits, owners."""

from __future__ import annotations

from grafana.generate.common import INSTANCE, LATE, ONE_PIPELINE
from grafana.generate.common import panels as all_streams
from grafana.generate.model import (
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
)
from grafana.generate.promql import NAMED, PROCESS

STREAM = Variable("stream", "received_offset", "Stream")

panels = all_streams.matching(stream="=~$stream")


def _newest(name: str) -> str:
    return panels.fold("max", name, "stream")


_OFFSETS = Row(
    "Offsets",
    (
        Panel(
            "Streams",
            "One line per stream or partition. Committed: the next run continues after it. "
            "Settled: everything up to it is settled. Received: the last message received. Tail: "
            "the last message in the stream.",
            (
                Query(_newest("committed_offset"), column="Committed"),
                Query(_newest("settled_offset"), column="Settled"),
                Query(_newest("received_offset"), column="Received"),
                Query(_newest("tail_offset"), column="Tail"),
                Query(_newest("lag_messages"), column="Messages behind"),
                Query(_newest("lag_seconds"), column="Time behind"),
                Query(_newest("uncommitted_messages"), column="Settled, not committed"),
                Query(f"time() - {_newest('last_commit_timestamp_seconds')}", column="Commit age"),
            ),
            "none",
            "table",
            width=24,
            units={"Time behind": "s", "Commit age": "s"},
            passing=("stream",),
        ),
        Panel(
            "Messages behind",
            "Messages between the watermark and the end, by stream. If only one partition rises, "
            "its keys are hot or a message in it is stuck.",
            (Query(_newest("lag_messages"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Time behind",
            "Time since the oldest unsettled message was published, by stream.",
            (Query(_newest("lag_seconds"), "{{stream}}"),),
            "s",
            thresholds=LATE,
        ),
        Panel(
            "Lost to retention",
            "Offsets that retention removed before the pipeline processed them, since the "
            "processes started. These messages are lost: keep more of the stream, or make the "
            "pipeline faster.",
            (Query(panels.fold("sum", "truncated_messages", "stream"), "{{stream}}"),),
            "short",
            thresholds=(Threshold(1, "red"),),
        ),
    ),
)

_COMMITS = Row(
    "Commits",
    (
        Panel(
            "Commits",
            "Commits per second, by result. failed: the offset could not be sent to the broker; "
            "the commit is retried.",
            (Query(panels.rate("commits", "result"), "{{result}}"),),
            "cps",
            stacked=True,
        ),
        Panel(
            "Commit age",
            "Time since the last commit, by stream. It may grow only while no messages arrive.",
            (Query(f"time() - {_newest('last_commit_timestamp_seconds')}", "{{stream}}"),),
            "s",
        ),
        Panel(
            "Settled, not committed",
            "Messages that a crash now would repeat.",
            (Query(_newest("uncommitted_messages"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Longest wait for a commit",
            "Time that settled messages have been waiting for a commit, by process.",
            (Query(panels.fold("max", "uncommitted_seconds", *PROCESS), NAMED),),
            "s",
            thresholds=(Threshold(60, "red"),),
        ),
        Panel(
            "Foreign commits",
            "Checks of the stored offset per second that found one of another writer, by stream. "
            "Above 0, the pipeline runs a second time or somebody set its offset.",
            (Query(panels.rate("foreign_commits", "stream"), "{{stream}}"),),
            "cps",
        ),
    ),
)

_OWNERS = Row(
    "Partition owners",
    (
        Panel(
            "Owners",
            "Coloured while the process consumes the partition. Each partition should have one "
            "owner; without one for long, no process consumes it.",
            (
                Query(
                    panels.fold("max", "partition_active", "stream", *PROCESS),
                    "{{stream}} {{instance}} {{worker}}",
                ),
            ),
            "short",
            "state-timeline",
            width=12,
            height=10,
            mappings={"0": "no", "1": "owner"},
            thresholds=(Threshold(1, "blue"),),
        ),
        Panel(
            "Partitions of each process",
            "Partitions that each process consumes; the broker distributes them.",
            (Query(panels.fold("sum", "active_partitions", *PROCESS), NAMED),),
            "short",
            width=12,
            height=10,
            stacked=True,
        ),
        Panel(
            "Moves",
            "Partitions that a process gained or lost to another, since it started. If it rises "
            "although no process starts or stops, connections break.",
            (
                Query(
                    panels.fold("sum", "partition_moves", *PROCESS, "direction"),
                    "{{instance}} {{worker}} {{direction}}",
                ),
                Query(panels.fold("sum", "rebalances", *PROCESS), f"{NAMED} subscribed again"),
            ),
            "short",
            width=12,
        ),
        Panel(
            "Hand-over, mean",
            "Mean time from the broker's request for a partition until it was drained and "
            "committed, since the processes started. The broker waits for 60 seconds.",
            (
                Query(
                    panels.mean_so_far("hand_over_duration_seconds", *PROCESS),
                    NAMED,
                ),
            ),
            "s",
            width=12,
            thresholds=(Threshold(40, "red"),),
        ),
    ),
)

_DELIVERY = Row(
    "Delivery",
    (
        Panel(
            "Delivered",
            "Messages that the broker delivers per second, before any filter of the client.",
            (Query(panels.rate("delivered_messages", "stream"), "{{stream}}"),),
            "cps",
        ),
        Panel(
            "Bytes delivered",
            "Bytes of chunks that the broker delivers per second.",
            (Query(panels.rate("delivered_bytes", "stream"), "{{stream}}"),),
            "Bps",
        ),
        Panel(
            "Chunks",
            "Chunks that the broker delivers per second. Many small chunks cost more than a few "
            "large ones; they come from publishers that send messages one by one.",
            (Query(panels.rate("chunks", "stream"), "{{stream}}"),),
            "cps",
        ),
        Panel(
            "Credits",
            "Chunks that the broker may send before it needs more credit. At 0, it waits for the "
            "pipeline.",
            (Query(panels.fold("sum", "credits", "stream"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Buffered",
            "Bytes of chunks that were delivered and not passed to the pipeline yet.",
            (Query(panels.fold("sum", "buffered_bytes", "stream"), "{{stream}}"),),
            "bytes",
        ),
        Panel(
            "Retention headroom",
            "Offsets between the first one of the stream and the settled one. As it approaches 0, "
            "retention is about to remove unread messages: make the pipeline faster, or keep "
            "more of the stream.",
            (Query(panels.fold("min", "retention_headroom_messages", "stream"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Overtaken by retention",
            "Offsets that retention removed before a consumer read them, since the processes "
            "started.",
            (Query(panels.fold("sum", "overtaken_messages", "stream"), "{{stream}}"),),
            "short",
            thresholds=(Threshold(1, "red"),),
        ),
    ),
)

PARTITIONS = Dashboard(
    "flowstream-partitions",
    "flowstream: streams and partitions",
    "Offsets, lag and commits by stream, and the owner of each partition.",
    (ONE_PIPELINE, INSTANCE, STREAM),
    (_OFFSETS, _COMMITS, _OWNERS, _DELIVERY),
)
