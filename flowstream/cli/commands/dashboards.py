"""`flowstream dashboards export`: dashboards and alerts for one's own Grafana and Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say
from flowstream.cli.parser.options import Json, examples, new_app
from flowstream.texts import plural

app = new_app(
    "dashboards",
    "Grafana dashboards, Prometheus rules and what provisions them.",
    examples("flowstream dashboards export grafana"),
)


@app.callback()
def dashboards() -> None:
    """Grafana dashboards, Prometheus rules and what provisions them."""


@app.command(
    epilog=examples(
        "flowstream dashboards export grafana",
        "flowstream dashboards export grafana --scrape app-1:9464 --scrape app-2:9464 --force",
        "flowstream dashboards export grafana --prometheus https://prometheus.example.org",
    )
)
def export(
    directory: Annotated[Path, typer.Argument(help="Where to; made where it does not exist.")],
    *,
    scrape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A run's --http address as Prometheus reaches it; may be given several times. "
            "localhost:9464 without one.",
        ),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Prometheus as Grafana reaches it; http://localhost:9090 without one.",
        ),
    ] = None,
    runbooks: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The page that alerts link to; an alert's name as anchor is added. /runbooks of "
            "the first --scrape address without one.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that were changed.")
    ] = False,
    json: Json = False,
) -> None:
    """Write dashboards, alert and recording rules, scrape configuration and provisioning.

    dashboards/*.json can be imported into any Grafana; prometheus/ and provisioning/ go where
    Prometheus and Grafana read their configuration. Every dashboard asks for its data source.
    """
    from flowstream.monitor import DashboardSettings, dashboard_files

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
                f"{changed[0]} is there with other content; --force overwrites it "
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
    """Whether something else than `text` is there."""
    return path.exists() and path.read_bytes() != text.encode()
