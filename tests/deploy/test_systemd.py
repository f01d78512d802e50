"""The units of systemd: accepted by systemd, closed, and with enough time to drain."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from flowstream.cli.app import app
from flowstream.cli.exit_codes import ExitCode
from pipelines.sales import pipeline
from tests.deploy.files import AFTER_DRAIN, DEPLOY, UNITS, exec_start, seconds, service, variables

EXPOSURE = 20
"""The most that `systemd-analyze security` may find, of 100: services without any limit have 96."""
REASON = "systemd-analyze is not installed: apt-get install systemd"
FINAL = {
    *(ExitCode.USAGE, ExitCode.DECLARATION, ExitCode.HALTED, ExitCode.TRUNCATED),
    *(ExitCode.MODULE_MISSING, ExitCode.MODULE_BROKEN, ExitCode.NO_PIPELINE),
    *(ExitCode.PAYLOAD_TYPE, ExitCode.DUPLICATE_NAME),
}
"""Exit codes after which a restart ends in the same way."""

every_unit = pytest.mark.parametrize("name", UNITS)


def analyze(*arguments: str | Path) -> None:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip(REASON)
    done = subprocess.run(
        [found, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr


def installed(name: str, folder: Path) -> Path:
    """The unit as it would be found on a machine that has flowstream: systemd looks for files."""
    text = (DEPLOY / "systemd" / name).read_text()
    (folder / "flowstream").write_text("#!/bin/sh\n")
    (folder / "flowstream").chmod(0o755)
    copy = folder / name
    copy.write_text(text.replace(exec_start(name)[0], str(folder / "flowstream")))
    return copy


@every_unit
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    analyze("verify", "--man=no", installed(name, tmp_path))


@every_unit
def test_systemd_finds_the_service_closed(name: str, tmp_path: Path) -> None:
    copy = installed(name, tmp_path)
    analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", copy)


@every_unit
def test_the_command_is_one_and_listens_on_the_loopback(name: str) -> None:
    _, command, *arguments = exec_start(name)
    context = get_command(app).get_command(None, command).make_context(command, arguments)  # type: ignore[attr-defined]
    assert context.params["targets"] == ["pipelines.sales"]
    host, port = context.params["http"]
    assert host == "127.0.0.1"
    assert port == (9473 if "@" in name else 9464)


@every_unit
def test_a_stop_leaves_the_drain_its_time(name: str) -> None:
    limit = seconds(service(name)["TimeoutStopSec"])
    assert limit > pipeline.options.drain_timeout + AFTER_DRAIN
    assert "KillSignal" not in service(name)  # SIGTERM, which drains
    assert service(name)["KillMode"] == "mixed"


@every_unit
def test_a_run_that_cannot_succeed_is_not_restarted(name: str) -> None:
    assert service(name)["Restart"] == "on-failure"
    codes = {int(code) for code in service(name)["RestartPreventExitStatus"].split()}
    assert codes == {int(code) for code in FINAL}


@every_unit
def test_no_readiness_is_promised_that_the_program_does_not_report(name: str) -> None:
    """Type=notify would wait for a message that `flowstream run` does not send."""
    assert service(name)["Type"] == "exec"


@every_unit
def test_the_password_is_in_a_file_of_root_only(name: str) -> None:
    text = (DEPLOY / "systemd" / name).read_text()
    assert service(name)["EnvironmentFile"] == "/etc/flowstream/flowstream.env"
    assert "install -m 0600 flowstream.env /etc/flowstream/flowstream.env" in text
    assert "rabbitmq-stream" not in text
    assert [*variables(DEPLOY / "systemd" / "flowstream.env")] == ["FLOWSTREAM_URL"]


def test_both_units_are_the_same_but_for_the_instance() -> None:
    one, template = (service(name) for name in UNITS)
    differing = {key for key in one if one[key] != template[key]}
    assert one.keys() == template.keys()
    assert differing == {"ExecStart"}
