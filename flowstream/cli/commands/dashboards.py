"""`flowstream dashboards export`: dashboards and alerts for one's own Grafana and Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json
from flowstream.monitor import DashboardSettings, dashboard_files
from flowstream.texts import plural

app: Final = new_app(
    "dashboards",
    "Write Grafana dashboards, Prometheus rules and their provisioning.",
    examples("flowstream dashboards export grafana"),
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
    settings = DashboardSettings()
    settings = DashboardSettings(
        targets=tuple(scrape or settings.targets),
        prometheus=prometheus or settings.prometheus,
        runbooks=runbooks,
    )
    files = {directory / name: text for name, text in dashboard_files(settings).items()}
    try:
        changed = [path for path, text in files.items() if _differs(path, text)]
        if changed and not force:
            raise CommandError(
                f"{changed[0]} exists with other content; --force overwrites it "
                f"({plural(len(changed), 'file')})",
                ExitCode.USAGE,
            )
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"cannot write {error.filename or directory}: {error.strerror or error}; "
            "choose another directory",
            ExitCode.USAGE,
        ) from error
    if json:
        print_json([str(path) for path in files])
        return
    for path in files:
        say(str(path))
    note(f"{plural(len(files), 'file')} written")


def _differs(path: Path, text: str) -> bool:
    """Whether the file exists with other content than `text`."""
    return path.exists() and path.read_bytes() != text.encode()
