"""Dashboard of published messages and their confirms."""

from __future__ import annotations

from grafana.generate.common import INSTANCE
from grafana.generate.common import panels as all_streams
from grafana.generate.model import (
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
)

STREAM = Variable("stream", "published_messages", "Stream")

panels = all_streams.matching(stream="=~$stream")

_PUBLISHING = Row(
    "Publishing",
    (
        Panel(
            "Published",
            "Messages sent per second, by stream: sinks, dead letters and publishers.",
            (Query(panels.rate("published_messages", "stream"), "{{stream}}"),),
            "cps",
        ),
        Panel(
            "Bytes published",
            "Bytes of message bodies per second.",
            (Query(panels.rate("published_bytes", "stream"), "{{stream}}"),),
            "Bps",
        ),
        Panel(
            "Unconfirmed",
            "Messages accepted and not confirmed yet. At the limit max_unconfirmed, publishing "
            "waits for the broker.",
            (Query(panels.fold("sum", "unconfirmed_messages", "stream"), "{{stream}}"),),
            "short",
        ),
        Panel(
            "Confirmed",
            "Messages confirmed per second.",
            (Query(panels.rate("confirmed_messages", "stream", code="1"), "{{stream}}"),),
            "cps",
        ),
        Panel(
            "Refused or unanswered",
            "Messages that the broker refused, by response code, and (code 0) did not respond to "
            "in time, since the processes started. Refused messages were not stored.",
            (
                Query(
                    f"{panels.fold('sum', 'confirmed_messages', 'stream', 'code', code='!=1')}\n"
                    f"or {panels.fold('sum', 'confirmed_messages', 'stream', code='1')} * 0",
                    "{{stream}} {{code}}",
                ),
            ),
            "short",
            thresholds=(Threshold(1, "red"),),
        ),
        Panel(
            "Confirm latency",
            "Time from accepting the oldest message of a confirm until the confirm arrived.",
            (
                Query(
                    panels.quantile(0.5, "confirm_duration_seconds", "stream"), "{{stream}} median"
                ),
                Query(
                    panels.quantile(0.99, "confirm_duration_seconds", "stream"), "{{stream}} 99 %"
                ),
            ),
            "s",
        ),
    ),
)

PUBLISHER = Dashboard(
    "flowstream-publisher",
    "flowstream: publisher",
    "Published messages, and how fast the broker confirms them.",
    (INSTANCE, STREAM),
    (_PUBLISHING,),
)
