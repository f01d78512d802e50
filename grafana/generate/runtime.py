"""Dashboard of the processes: connections and their recovery, the event loop, memory, versions."""

from __future__ import annotations

from grafana.generate.common import INSTANCE, panels
from grafana.generate.model import Dashboard, Panel, Query, Row, Threshold
from grafana.generate.promql import NAMED, PROCESS


def _of_process(series: str) -> str:
    """A metric of the Prometheus client, for the processes of flowstream only."""
    return f"{series}\nand on (job, instance) {panels.series('build_info')}"


_CONNECTIONS = Row(
    "Connections to brokers",
    (
        Panel(
            "Open connections",
            "Open connections, by role: locating (topology), tracking (offsets), publishing, "
            "consuming.",
            (Query(panels.fold("sum", "connections", "role"), "{{role}}"),),
            "short",
            stacked=True,
        ),
        Panel(
            "Connections opened",
            "Connections opened since the processes started. Steps are reconnects, or moves to "
            "another node.",
            (Query(panels.fold("sum", "connections_opened", "role"), "{{role}}"),),
            "short",
        ),
        Panel(
            "Connections lost",
            "Connections that ended while they were in use, since the processes started, by role "
            "and reason.",
            (
                Query(
                    panels.fold("sum", "connections_lost", "role", "reason"), "{{role}} {{reason}}"
                ),
            ),
            "short",
        ),
        Panel(
            "Disconnected",
            "Environments, publishers and consumers that lost their connection to the broker and "
            "are reconnecting.",
            (
                Query(
                    panels.fold("max", "recovering", *PROCESS, "kind", "name"),
                    "{{instance}} {{worker}} {{kind}} {{name}}",
                ),
            ),
            "short",
            thresholds=(Threshold(1, "red"),),
        ),
        Panel(
            "Recoveries",
            "Reconnects after a lost connection, since the processes started.",
            (Query(panels.fold("sum", "recoveries", "kind", "name"), "{{kind}} {{name}}"),),
            "short",
        ),
        Panel(
            "Recovery time, mean",
            "Mean time from a lost connection until everything was recovered, since the processes "
            "started.",
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
            "Delay of timers on the event loop; everything else is delayed as much. Above 0.1 s "
            "something blocks the loop: an async handler that computes (make it a plain def), or "
            "too little CPU.",
            (
                Query(
                    panels.quantile(0.99, "event_loop_lag_seconds", *PROCESS),
                    "{{instance}} {{worker}} 99 %",
                ),
            ),
            "s",
            thresholds=(Threshold(0.1, "yellow"), Threshold(1, "red")),
        ),
        Panel(
            "Event-loop lag, mean",
            "Mean delay of timers on the event loop.",
            (Query(panels.mean("event_loop_lag_seconds", *PROCESS), NAMED),),
            "s",
        ),
        Panel(
            "Memory",
            "Resident memory. Its limit follows from max_in_flight_bytes and what handlers keep. "
            "If it only rises, there is a leak.",
            (Query(_of_process("process_resident_memory_bytes"), NAMED),),
            "bytes",
        ),
        Panel(
            "CPU",
            "Share of one core. Near 100 %, the process is at its limit: run more processes that "
            "share the partitions of a super stream.",
            (
                Query(
                    _of_process("rate(process_cpu_seconds_total[$__rate_interval])"),
                    NAMED,
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Open files",
            "File descriptors in use, as a share of the limit of the process.",
            (Query(_of_process("process_open_fds / process_max_fds"), NAMED),),
            "percentunit",
            thresholds=(Threshold(0.8, "red"),),
        ),
        Panel(
            "Garbage collections",
            "Collections per second, by generation. `flowstream run` reduces them (--tune-gc).",
            (
                Query(
                    _of_process("rate(python_gc_collections_total[$__rate_interval])"),
                    "{{instance}} {{worker}} {{generation}}",
                ),
            ),
            "cps",
        ),
        Panel(
            "Versions",
            "The versions of flowstream and Python that each process runs.",
            (Query(panels.fold("max", "build_info", *PROCESS, "version", "python"),
                   column="Runs"),),
            "none",
            "table",
            passing=("instance", "worker", "version", "python"),
        ),
    ),
)  # fmt: skip

RUNTIME = Dashboard(
    "flowstream-runtime",
    "flowstream: runtime",
    "Connections and their recovery, the event loop, and the processes.",
    (INSTANCE,),
    (_CONNECTIONS, _PROCESSES),
)
