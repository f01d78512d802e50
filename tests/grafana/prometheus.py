"""Debian's Prometheus and promtool; tests that need them are skipped where they are not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.grafana.queries import RULES

REASON = "prometheus is not installed: apt-get install prometheus"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; else the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(REASON)
    return found


def promtool(*arguments: str | Path, stdin: bytes = b"") -> None:
    """Run promtool; what it complains of is an AssertionError."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


class Prometheus:
    """A Prometheus with the rules under grafana/, which scrapes every second; killed at the end.

    Targets may be added while it runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets: list[str] = []
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._discovery = folder / "targets.json"
        self._log = folder / "prometheus.log"

    def __enter__(self) -> Self:
        path = program("prometheus")
        configuration = self._folder / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self._configuration()))
        self._write_targets()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    path,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._await_readiness()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def scrape(self, target: str) -> None:
        """Scrape HOST:PORT from now on."""
        self._targets.append(target)
        self._write_targets()

    def query(self, expression: str) -> list[Any]:
        """The series of an expression now; a mistake in it is an AssertionError."""
        return self._ask("query", query=expression)

    def query_range(self, expression: str, start: float, end: float) -> list[Any]:
        """The series of an expression between two Unix times, second by second."""
        return self._ask("query_range", query=expression, start=start, end=end, step=1)

    def _ask(self, path: str, **parameters: Any) -> list[Any]:
        body = urllib.parse.urlencode(parameters).encode()
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        try:
            with urllib.request.urlopen(url, data=body, timeout=30) as answer:
                result: list[Any] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters['query']}: {error.read().decode()}") from error
        return result

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "flowstream",
                    "file_sd_configs": [{"files": [str(self._discovery)]}],
                }
            ],
        }

    def _write_targets(self) -> None:
        """In one step, since Prometheus watches the file."""
        draft = self._discovery.with_suffix(".draft")
        draft.write_text(json.dumps([{"targets": self._targets}]))
        draft.replace(self._discovery)

    def _await_readiness(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5).close()
                return
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
