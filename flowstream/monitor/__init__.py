"""The HTTP face of a run, and the figures behind it.

    board = Board()                        # an observer of telemetry events
    monitor = Monitor(metrics, board)
    await task_group.start(monitor.run, "127.0.0.1", 9464)
    task_group.start_soon(keep_sampling, board)

The board does no I/O; the terminal view of the command line reads it too. The server is h11 over
anyio with bounds on everything (http.py), and answers metrics, health and a self-contained live
page (app.py lists the paths). `DeadLetters` is what reads them for the page, and handed in.
`dashboard_files` are Grafana's dashboards and Prometheus's rules for the same figures
(dashboards.py).
"""

from flowstream.monitor.app import Monitor, keep_sampling
from flowstream.monitor.board import Board
from flowstream.monitor.dashboards import COMPOSE, DashboardSettings, dashboard_files
from flowstream.monitor.describe import in_order
from flowstream.monitor.health import Check, Watched, readiness
from flowstream.monitor.http import Request, Response
from flowstream.monitor.letters import DeadLetters

__all__ = [
    "COMPOSE",
    "Board",
    "Check",
    "DashboardSettings",
    "DeadLetters",
    "Monitor",
    "Request",
    "Response",
    "Watched",
    "dashboard_files",
    "in_order",
    "keep_sampling",
    "readiness",
]
