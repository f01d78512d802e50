"""`flowstream dashboards export`: dashboards and alerts for one's own Grafana and Prometheus."""

from __future__ import annotations

from pathlib import Path

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say
from flowstream.monitor import DashboardSettings, dashboard_files
from flowstream.texts import plural


def export(
    directory: Path,
    *,
    scrape: list[str] | None,
    prometheus: str | None,
    runbooks: str | None,
    force: bool,
    json: bool,
) -> None:
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
