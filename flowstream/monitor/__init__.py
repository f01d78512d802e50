"""The HTTP endpoints of a run, the live page among them, and the figures that they show.

    board = Board()                        # an observer of telemetry events
    monitor = Monitor(metrics, board)
    await task_group.start(monitor.run, "127.0.0.1", 9464)
    task_group.start_soon(keep_sampling, board)

What this room promises:

* The board does no I/O and takes its clock as an argument. Its memory is bounded: five minutes of
  samples, 200 log entries, 50 reasons.
* The server bounds connections, sizes and times, so that no client can slow down a run.
* Message bodies and changes need a request to an IP address or localhost, from the page itself.
* The room does not import the client: what reads dead letters is passed in (`DeadLetters`).

Read in this order:

    board.py          telemetry events and statistics -> the state of every pipeline of a run
    figures.py        what the board keeps of one pipeline; history.py its samples
    health.py         the checks of /readyz; condition.py the condition of a pipeline, in one word
    snapshot.py       what the page and the terminal view show, as JSON-ready data
    event_log.py      the event log; advice.py what to do about a failing check or a condition
    http.py           the HTTP server; guard.py which requests it refuses
    app.py            the paths that it answers, with gauges.py (/metrics), settings.py, control.py
                      and dead_letters.py
    page/             the live page; page/runbooks.html is generated from docs/operations.md
    workers/          one face of the worker processes of a run (`run --workers`)
    dashboards.py     the Grafana dashboards and Prometheus rules that the package ships
"""

from flowstream.monitor.app import Monitor, keep_sampling
from flowstream.monitor.board import Board
from flowstream.monitor.dashboards import COMPOSE, DashboardSettings, dashboard_files
from flowstream.monitor.dead_letters import DeadLetters
from flowstream.monitor.http import Request, Response
from flowstream.monitor.snapshot import outcomes_in_order
from flowstream.monitor.workers.app import FIGURES, WorkerEndpoints, WorkersMonitor
from flowstream.monitor.workers.snapshots import SILENT_GRACE, with_ended
from flowstream.monitor.workers.views import Families, Retired, WorkerView

__all__ = [
    "COMPOSE",
    "FIGURES",
    "SILENT_GRACE",
    "Board",
    "DashboardSettings",
    "DeadLetters",
    "Families",
    "Monitor",
    "Request",
    "Response",
    "Retired",
    "WorkerEndpoints",
    "WorkerView",
    "WorkersMonitor",
    "dashboard_files",
    "keep_sampling",
    "outcomes_in_order",
    "with_ended",
]
