"""`flowstream new`: what it writes runs and passes as written, and it hurts nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flowstream.cli.commands.new import INSTALL, SAMPLE
from tests.brokers.running import Broker
from tests.cli.command import environment, flowstream
from tests.cli.rows import Bad, Row

ROWS = {
    ("new",): Row(
        "orders_{n} --directory {n}", r"wrote \S+/orders_\w+\.py and \S+[\s\S]+flowstream run",
        Bad("my-orders", 2, "is not a valid module name"),
        alone=True,
    ),
}  # fmt: skip


ROOT = Path(__file__).parents[3]


def run(*command: str, cwd: Path) -> str:
    """Run a tool in the folder; returns what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(None),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("directory", "package", "target"),
    [
        (None, False, "shop_orders"),
        ("jobs", False, "jobs.shop_orders"),
        ("jobs", True, "jobs.shop_orders"),
        ("my-jobs", False, None),
    ],
    ids=["here", "in a folder", "in a package", "in a folder that is no module"],
)
def test_the_test_passes(
    tmp_path: Path, directory: str | None, package: bool, target: str | None
) -> None:
    folder = tmp_path / (directory or "")
    if package:
        folder.mkdir()
        (folder / "__init__.py").touch()
    options = [] if directory is None else ["--directory", directory]
    result = flowstream("new", "shop_orders", *options, cwd=tmp_path)
    assert result.code == 0, result.err
    assert f"flowstream run {target or 'shop_orders'} --create" in result.err
    assert (f"cd {directory}" in result.err) is (target is None)
    test = folder / "test_shop_orders.py"
    assert f"pytest {test.relative_to(tmp_path)}" in result.err
    assert "3 passed" in run("pytest", "-q", str(test.relative_to(tmp_path)), cwd=tmp_path)
    module = folder.relative_to(tmp_path) / "shop_orders.py"
    assert f"mypy --strict {module} {test.relative_to(tmp_path)}" in result.err
    files = str(module), str(test.relative_to(tmp_path))
    said = run("mypy", "--strict", *files, cwd=tmp_path)
    assert "no issues found in 2 source files" in said


def test_one_command_installs_what_it_takes_to_test_and_check_it(tmp_path: Path) -> None:
    result = flowstream("new", "shop_orders", cwd=tmp_path)
    assert f"  {INSTALL}" in result.err.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = [each.split(">")[0] for each in project["optional-dependencies"]["testing"]]
    assert f"pip install {' '.join(extra)}" == INSTALL


@pytest.mark.parametrize("package", [False, True])
def test_it_is_tidy(tmp_path: Path, package: bool) -> None:
    if package:
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "__init__.py").touch()
    options = ["--directory", "jobs"] if package else []
    assert flowstream("new", "shop_orders", *options, cwd=tmp_path).code == 0
    run("ruff", "check", "--select", "E,F,I,UP,B,RUF", "--line-length", "100", ".", cwd=tmp_path)
    run("ruff", "format", "--check", "--line-length", "100", ".", cwd=tmp_path)


def test_it_runs_on_a_broker(tmp_path: Path, broker: Broker, stream_name: str) -> None:
    name = "shop_" + stream_name.rpartition(".")[2]
    try:
        assert flowstream("new", name, cwd=tmp_path).code == 0
        created = flowstream("streams", "create", name, url=broker.url)
        assert created.code == 0, created.err
        sent = flowstream("publish", name, "-", url=broker.url, stdin=SAMPLE.encode())
        assert sent.code == 0, sent.err
        result = flowstream("run", name, "--until-idle", "0.2", url=broker.url, cwd=tmp_path)
        assert result.code == 0, result.err
        assert "stored 1, 2.5 in total" in result.out
    finally:
        for stream in (name, f"{name}.dead"):
            flowstream("streams", "delete", stream, "--yes", url=broker.url)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-orders", "is not a valid module name"),
        ("pkg.orders", "is not a valid module name"),
        ("1st", "is not a valid module name"),
        ("class", "is not a valid module name"),
        ("json", "of the standard library"),
        ("pydantic", "the installed package"),
        ("flowstream", "the installed package"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, said: str) -> None:
    result = flowstream("new", name, cwd=tmp_path)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert len(result.err.splitlines()) == 1
    assert said in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["orders_x.py", "test_orders_x.py"])
def test_nothing_is_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    result = flowstream("new", "orders_x", cwd=tmp_path)
    assert result.code == 2
    assert f"{existing} exists already" in result.err
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = flowstream("new", "orders_x", "--directory", "file", cwd=tmp_path)
    assert result.code == 2
    assert "cannot write file" in result.err
    assert len(result.err.splitlines()) == 1
