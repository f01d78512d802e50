"""What the pages on installation say is what the package, the image and the compose file have."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command

from flowstream import __version__
from flowstream.cli.app import app
from flowstream.monitor import DashboardSettings, dashboard_files
from tests.documents import ROOT, blocks

PAGE = ROOT / "docs" / "installation.md"
PAGES = [PAGE, ROOT / "README.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines(page: Path, command: str) -> list[list[str]]:
    """The words of each line of a shell that begins with the command."""
    return [
        shlex.split(line, comments=True)
        for block in blocks(page)
        if block.language == "sh"
        for line in block.source.splitlines()
        if line.startswith(command)
    ]


def test_the_table_of_extras() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    extras = PROJECT["optional-dependencies"]
    assert {name for name, _ in rows} == {*extras}
    for name, installs in rows:
        if name != "all":
            assert [re.split(r"[>=;]", it)[0] for it in extras[name]] == installs.split(", ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_installs_the_project_of_others_that_has_this_name(page: Path) -> None:
    """On PyPI `flowstream` is another one: what is installed is a path, a wheel or an address."""
    for words in lines(page, "pip install") + lines(page, "uv "):
        named = [word for word in words if "flowstream" in word]
        assert all("/" in word for word in named), words


def test_extras_that_are_installed_exist() -> None:
    for page in PAGES:
        for names in re.findall(r"\[([\w,]+)\]'", page.read_text()):
            assert {*names.split(",")} <= {*PROJECT["optional-dependencies"]}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, as pip would unpack them, built from the sdist as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run([*build, "--target", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*build, "--target", "wheel"], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder / "installed")
    return folder / "installed"


@pytest.mark.slow
def test_the_wheel_has_the_package_and_the_generated_files(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert top == {"flowstream", f"flowstream-{__version__}.dist-info"}
    for kind in ("dashboards", "prometheus", "provisioning"):
        ours = {
            path.relative_to(ROOT / "grafana"): path.read_bytes()
            for path in (ROOT / "grafana" / kind).rglob("*.*")
        }
        shipped = installed / "flowstream" / "monitor" / "grafana"
        assert ours == {
            path.relative_to(shipped): path.read_bytes() for path in (shipped / kind).rglob("*.*")
        }
    package = {path.relative_to(ROOT) for path in (ROOT / "flowstream").rglob("*.py")}
    assert package == {path.relative_to(installed) for path in installed.rglob("*.py")}


@pytest.mark.slow
def test_an_installed_wheel_exports_the_dashboards(installed: Path, tmp_path: Path) -> None:
    """As an editable install does: tests/cli/commands/test_dashboards.py."""
    program = "import flowstream, sys; print(flowstream.__file__, file=sys.stderr); "
    program += "from flowstream.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "dashboards", "export", ".", "--scrape", "app-1:9464"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stderr
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.*")}
    assert written == dashboard_files(DashboardSettings(targets=("app-1:9464",)))


def test_versions() -> None:
    text = PAGE.read_text()
    versions = [
        found[1]
        for it in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", it))
    ]
    assert f"| Python | {', '.join(versions)} |" in text
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert {*re.findall(r"flowstream[- ](\d+\.\d+\.\d+)", text)} == {__version__}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_containers_run_is_a_command(page: Path) -> None:
    (line,) = [words for words in lines(page, "docker run") if "run" in words[2:]]
    image = line.index("flowstream")
    command, *arguments = line[image + 1 :]
    context = get_command(app).get_command(None, command).make_context(command, arguments)  # type: ignore[attr-defined]
    assert context.params["embedded"]
    assert context.params["http"] == ("0.0.0.0", 9464)
    assert "127.0.0.1:9464:9464" in line


def test_the_image_lets_the_embedded_broker_keep_its_data() -> None:
    text = (ROOT / "Dockerfile").read_text()
    (made,) = re.findall(r"install --directory --owner=flowstream (.*)", text)
    folder = re.findall(r"^WORKDIR (\S+)", text, re.MULTILINE)[-1]
    assert {"/data", f"{folder}/.flowstream"} <= {*made.split()}
    assert "ORDERS_WAREHOUSE=/data/" in text


def test_the_image_builds_from_all_that_the_wheel_includes() -> None:
    copied = re.findall(r"^COPY (\S+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["only-include"]
    assert {path.partition("/")[0] for path in included} <= {*copied}


def test_compose_services_that_are_named_exist() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    for page in PAGES:
        for words in lines(page, "docker compose up"):
            for service in words[3:]:
                assert service.startswith("-") or f"\n  {service}:\n" in compose


def test_the_pages_begin_with_it() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert headings[0] == "Installation"
    index = (ROOT / "docs" / "index.md").read_text()
    assert re.search(r"```\{toctree\}\n[^`]*?\n\n(\S+)\n", index)[1] == "installation"  # type: ignore[index]
