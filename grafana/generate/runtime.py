"""The processes: connections and their recovery, the event loop, memory, versions."""

from __future__ import annotations

from grafana.generate.common import INSTANCE, panels
from grafana.generate.model import Dashboard, Panel, Query, Row, Threshold


def _of_process(series: str) -> str:
    """A metric of the Prometheus client's own, of flowstream's processes only."""
    return f"{series}\nand on (job, instance) {panels.series('build_info')}"


_CONNECTIONS = Row(
    "Connections to brokers",
    (
        Panel(
            "Open",
            "Open connections, by role: locating (topology), tracking (offsets), publishing, "
            "consuming.",
            (Query(panels.fold("sum", "connections", "role"), "{{role}}"),),
            "short",
            stacked=True,
        ),
        Panel(
            "Opened",
            "Connections opened since the processes started; steps are reconnects or moves.",
            (Query(panels.fold("sum", "connections_opened", "role"), "{{role}}"),),
            "short",
        ),
        Panel(
            "Lost",
            "Connections that ended in use since the processes started, by role and reason.",
            (
                Query(
                    panels.fold("sum", "connections_lost", "role", "reason"), "{{role}} {{reason}}"
                ),
            ),
            "short",
        ),
        Panel(
            "Without its broker",
            "Environments, publishers and consumers that have lost their broker and try again.",
            (
                Query(
                    panels.fold("max", "recovering", "instance", "kind", "name"),
                    "{{instance}} {{kind}} {{name}}",
                ),
            ),
            "short",
            thresholds=(Threshold(1, "red"),),
        ),
        Panel(
            "Recoveries",
            "Times that a broker was lost and found again, since the processes started.",
            (Query(panels.fold("sum", "recoveries", "kind", "name"), "{{kind}} {{name}}"),),
            "short",
        ),
        Panel(
            "Time without the broker, mean",
            "Until recovered, over all recoveries since the processes started.",
            (Query(panels.mean_so_far("recovery_duration_seconds", "kind"), "{{kind}}"),),
            "s",
        ),
    ),
)

_PROCESSES = Row(
    "Processes",
    (
        Panel(
            "Event-loop lag",
            "How late the event loop wakes: everything waits so long. Above 0.1 s something "
            "blocks it: an async handler that computes (make it a plain def), or too little CPU.",
            (
                Query(
                    panels.quantile(0.99, "event_loop_lag_seconds", "instance"),
                    "{{instance}} 99 %",
                ),
            ),
            "s",
            thresholds=(Threshold(0.1, "yellow"), Threshold(1, "red")),
        ),
        Panel(
            "Event-loop lag, mean",
            "How late the event loop wakes on average.",
            (Query(panels.mean("event_loop_lag_seconds", "instance"), "{{instance}}"),),
            "s",
        ),
        Panel(
            "Memory",
            "Resident memory. It is bounded by max_in_flight_bytes and what handlers keep; a line "
            "that only rises is a leak.",
            (Query(_of_process("process_resident_memory_bytes"), "{{instance}}"),),
            "bytes",
        ),
        Panel(
            "CPU",
            "Share of one core. Near 100 %: one process can do no more; let more of them share the "
            "partitions of a super stream.",
            (
                Query(
                    _of_process("rate(process_cpu_seconds_total[$__rate_interval])"),
                    "{{instance}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Open files",
            "File descriptors in use, as a share of what the process may have.",
            (Query(_of_process("process_open_fds / process_max_fds"), "{{instance}}"),),
            "percentunit",
            thresholds=(Threshold(0.8, "red"),),
        ),
        Panel(
            "Garbage collections",
            "Per second, by generation; `flowstream run` makes them rare (--tune-gc).",
            (
                Query(
                    _of_process("rate(python_gc_collections_total[$__rate_interval])"),
                    "{{instance}} {{generation}}",
                ),
            ),
            "cps",
        ),
        Panel(
            "Versions",
            "Which flowstream and Python each process runs.",
            (Query(panels.fold("max", "build_info", "instance", "version", "python"),
                   column="Runs"),),
            "none",
            "table",
            passing=("instance", "version", "python"),
        ),
    ),
)  # fmt: skip

RUNTIME = Dashboard(
    "flowstream-runtime",
    "flowstream: runtime",
    "Connections, recovery, the event loop and the processes.",
    (INSTANCE,),
    (_CONNECTIONS, _PROCESSES),
)
