"""Grafana dashboards, Prometheus rules and the configuration of both, for given addresses.

`make dashboards` generates the files in the folder grafana/ of the repository, and the package
ships them. They contain the addresses of docker-compose.yml, which `dashboard_files` replaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowstream.errors import FlowstreamError

FOLDERS = ("dashboards", "prometheus", "provisioning")


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """The addresses of one installation.

    `targets` are the `--http` addresses of the runs as Prometheus reaches them. `prometheus` is the
    URL of Prometheus as Grafana reaches it. `runbooks` is the page that alerts link to, each with
    its name as anchor; None is the page that the first of the runs serves.
    """

    targets: tuple[str, ...] = ("localhost:9464",)
    prometheus: str = "http://localhost:9090"
    runbooks: str | None = None

    @property
    def runbook_page(self) -> str:
        """The address of the page that alerts link to."""
        return self.runbooks or f"http://{self.targets[0]}/runbooks"


COMPOSE = DashboardSettings(
    ("rabbitmq:9464",), "http://prometheus:9090", "http://localhost:9464/runbooks"
)
"""The addresses in the shipped files: the services of docker-compose.yml."""


def dashboard_files(settings: DashboardSettings = DashboardSettings()) -> dict[str, str]:
    """The text of every file, by its path below the folder to write them to."""
    folder = _shipped()
    paths = sorted(path for name in FOLDERS for path in (folder / name).rglob("*.*"))
    return {
        path.relative_to(folder).as_posix(): _addressed(path.read_text("utf-8"), settings)
        for path in paths
    }


def _shipped() -> Path:
    """The folder of the files: in the package when it was installed from a wheel, and at the top
    of the checkout when it is an editable install."""
    package = Path(__file__).parent / "grafana"
    checkout = Path(__file__).parents[2] / "grafana"
    for folder in (package, checkout):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    raise FlowstreamError(
        f"the dashboards are missing from this installation of flowstream: {package} does not "
        "exist. Install flowstream again from a wheel or a complete checkout"
    )


def _addressed(text: str, settings: DashboardSettings) -> str:
    """The text with the addresses of `settings` in place of those of docker-compose.yml.

    They are YAML values at the end of a line. JSON strings are YAML strings whatever they contain.
    """

    def targets(found: re.Match[str]) -> str:
        return "\n".join(f"{found[1]}{_quoted(target)}" for target in settings.targets)

    def value(of: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
        return lambda found: found[1] + _quoted(of(found[2]))

    for pattern, replacement in (
        (rf"^( *- ){re.escape(COMPOSE.targets[0])}$", targets),
        (rf"^( *url: ){re.escape(COMPOSE.prometheus)}()$", value(lambda _: settings.prometheus)),
        (
            rf"^( *runbook_url: ){re.escape(COMPOSE.runbook_page)}(#\w+)$",
            value(lambda anchor: settings.runbook_page + anchor),
        ),
    ):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
