"""Streams and partitions of a pipeline: offsets, lag, commits, and who holds which."""

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

STREAM = Variable("stream", "received_offset", "Stream")

panels = all_streams.matching(stream="=~$stream")


def _newest(name: str) -> str:
    return panels.fold("max", name, "stream")


_OFFSETS = Row(
    "Offsets",
    (
        Panel(
            "Streams",
            "One line for each stream or partition. Committed is where the next run begins; up to "
            "settled everything is done; received is in flight; tail is the newest known.",
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
            "Messages from the watermark to the end, by stream. One of many that rises alone: a "
            "hot partition, or a message in it that is stuck.",
            (Query(_newest("lag_messages"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Time behind",
            "Time since the oldest message that is not settled was published, by stream.",
            (Query(_newest("lag_seconds"), "{{stream}}"),),
            "s",
            thresholds=LATE,
        ),
        Panel(
            "Lost to retention",
            "Offsets that retention removed before they were handled, since the processes started. "
            "They are gone: keep more, or be faster.",
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
            "Per second, by result. failed: the broker could not be told; it is tried again.",
            (Query(panels.rate("commits", "result"), "{{result}}"),),
            "cps",
            stacked=True,
        ),
        Panel(
            "Commit age",
            "Time since the last commit, by stream. It grows on a quiet stream; with messages "
            "arriving it must not.",
            (Query(f"time() - {_newest('last_commit_timestamp_seconds')}", "{{stream}}"),),
            "s",
        ),
        Panel(
            "Settled, not committed",
            "Messages that would be repeated after a crash now.",
            (Query(_newest("uncommitted_messages"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Longest wait for a commit",
            "How long settled messages have been waiting for a commit, by process.",
            (Query(panels.fold("max", "uncommitted_seconds", "instance"), "{{instance}}"),),
            "s",
            thresholds=(Threshold(60, "red"),),
        ),
        Panel(
            "Stored by others",
            "Looks at the stored offset that found one which something else had stored, by stream. "
            "More than 0: the pipeline runs a second time, or somebody set its offset.",
            (Query(panels.rate("foreign_commits", "stream"), "{{stream}}"),),
            "cps",
        ),
    ),
)

_OWNERS = Row(
    "Who holds which partition",
    (
        Panel(
            "Owners",
            "Coloured while the process consumes the partition. Each partition has one owner; "
            "none for long means that no process took it.",
            (
                Query(
                    panels.fold("max", "partition_active", "stream", "instance"),
                    "{{stream}} {{instance}}",
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
            "How evenly the broker has spread them.",
            (Query(panels.fold("sum", "active_partitions", "instance"), "{{instance}}"),),
            "short",
            width=12,
            height=10,
            stacked=True,
        ),
        Panel(
            "Moves",
            "Partitions that came to a process (gained) or went to another (lost), since it "
            "started. Steps while no process starts or stops: connections break.",
            (
                Query(
                    panels.fold("sum", "partition_moves", "instance", "direction"),
                    "{{instance}} {{direction}}",
                ),
            ),
            "short",
            width=12,
        ),
        Panel(
            "Hand-over, mean",
            "From being asked for a partition until it was drained and committed, over all since "
            "the processes started; the broker waits 60 seconds.",
            (Query(panels.mean_so_far("hand_over_duration_seconds", "instance"), "{{instance}}"),),
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
            "Messages that the broker delivers per second, before any window or filter.",
            (Query(panels.rate("delivered_messages", "stream"), "{{stream}}"),),
            "cps",
        ),
        Panel(
            "Bytes delivered",
            "Bytes of chunks per second.",
            (Query(panels.rate("delivered_bytes", "stream"), "{{stream}}"),),
            "Bps",
        ),
        Panel(
            "Chunks",
            "Chunks per second. Many small chunks cost more than few large ones: publishers that "
            "send one by one make them.",
            (Query(panels.rate("chunks", "stream"), "{{stream}}"),),
            "cps",
        ),
        Panel(
            "Credits",
            "Chunks that the broker may still send. At 0 it waits for the pipeline.",
            (Query(panels.fold("sum", "credits", "stream"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Buffered",
            "Bytes of chunks that were delivered and not handed to the pipeline yet.",
            (Query(panels.fold("sum", "buffered_bytes", "stream"), "{{stream}}"),),
            "bytes",
        ),
        Panel(
            "Before retention",
            "Offsets that the stream still has before what is settled. Where it falls to 0, "
            "retention is about to overtake the reader: make it faster, or keep more.",
            (Query(panels.fold("min", "retention_headroom_messages", "stream"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Overtaken by retention",
            "Offsets that were removed before a consumer had read them, since the processes "
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
    "Offsets, lag and commits by stream, and who holds which partition.",
    (ONE_PIPELINE, INSTANCE, STREAM),
    (_OFFSETS, _COMMITS, _OWNERS, _DELIVERY),
)
