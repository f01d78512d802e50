"""`flowstream dashboards export`: arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json

app: Final = new_app(
    "dashboards",
    "Write Grafana dashboards, Prometheus rules and their provisioning.",
    examples("flowstream dashboards export grafana"),
    work="flowstream.cli.commands.dashboards",
)


@app.callback()
def dashboards() -> None:
    """Write Grafana dashboards, Prometheus rules and their provisioning."""


@app.command(
    epilog=examples(
        "flowstream dashboards export grafana",
        "flowstream dashboards export grafana --scrape app-1:9464 --scrape app-2:9464 --force",
        "flowstream dashboards export grafana --prometheus https://prometheus.example.org",
    )
)
def export(
    directory: Annotated[
        Path, typer.Argument(help="The folder to write to. It is created if it does not exist.")
    ],
    *,
    scrape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The --http address of a run, as Prometheus reaches it. Repeatable. "
            "Default: localhost:9464.",
        ),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Prometheus, as Grafana reaches it. Default: http://localhost:9090.",
        ),
    ] = None,
    runbooks: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The page that alerts link to, with the alert's name as anchor. "
            "Default: /runbooks of the first --scrape address.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files with other content.")
    ] = False,
    json: Json = False,
) -> None:
    """Write dashboards, alert and recording rules, scrape configuration and provisioning.

    Import dashboards/*.json into any Grafana, and copy prometheus/ and provisioning/ to where
    Prometheus and Grafana read their configuration. Every dashboard asks for its data source.
    """
