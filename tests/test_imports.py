"""Imports go one way (see ARCHITECTURE.md), and rooms are entered by their front door.

Across rooms a module imports the room (`from flowstream.protocol import Publish`), never
a file in it. Imports inside functions and under TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowstream

ROOT = Path(__file__).resolve().parents[1]

ROOMS = {
    "errors": set[str](),
    "texts": set[str](),
    "checks": {"errors", "texts"},
    "telemetry": {"texts"},
    "protocol": {"errors"},
    "client": {"errors", "texts", "checks", "telemetry", "protocol"},
    "pipeline": {"errors", "texts", "checks", "telemetry"},
    "connectors": {"errors", "texts", "checks", "telemetry", "client", "pipeline"},
    "broker": {"errors", "texts", "checks", "telemetry", "protocol"},
    "metrics": {"telemetry"},
    "tracing": {"errors", "texts"},
    "monitor": {"errors", "texts", "metrics", "telemetry", "pipeline"},
    "testing": {
        *("errors", "texts", "checks", "telemetry", "protocol", "client", "pipeline"),
        *("connectors", "broker", "metrics"),
    },
}
# These may import any room, and no room imports them.
TOP = {"cli", "__init__", "__main__"}
STANDARD_LIBRARY_ONLY = {"errors", "texts", "checks", "telemetry", "protocol"}
# The codecs of compressed sub-batches are an extra, imported when one is first met.
EXTRAS = {("protocol", "cramjam")}
# What the example applications may use beside flowstream and the standard library.
PIPELINES_MAY_USE = {"anyio", "msgspec", "pydantic"}


def imports_of(source: str, package: str) -> Iterator[tuple[str, str | None]]:
    """Each import as (module, name): `import a.b` is ("a.b", None)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from ((module, alias.name) for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "flowstream").parts[0].removesuffix(".py")


def package_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).parent.parts)


def trespasses(room: str, source: str, package: str) -> list[str]:
    """What a module of `room` imports and must not."""
    found = []
    for module, name in imports_of(source, package):
        if module == "flowstream" and name in ROOMS.keys() | TOP:
            path = ["flowstream", name]
        else:
            path = module.split(".")
        if path[0] != "flowstream":
            known = path[0] in sys.stdlib_module_names or (room, path[0]) in EXTRAS
            if room in STANDARD_LIBRARY_ONLY and not known:
                found.append(f"{module}: {room} uses the standard library only")
        elif len(path) == 1:
            if room not in TOP and name != "__version__":
                found.append(f"{module}.{name}: rooms do not import the face")
        elif path[1] == room:
            continue
        elif room not in TOP and path[1] not in ROOMS.get(room, set()):
            found.append(f"{module}: {room} may not import {path[1]}")
        elif len(path) > 2:
            found.append(f"{module}: import the room flowstream.{path[1]}, not a file in it")
    return found


def pipeline_trespasses(source: str) -> list[str]:
    """What an example application imports and must not."""
    found = []
    public = set(getattr(flowstream, "__all__", ()))
    for module, name in imports_of(source, "pipelines"):
        top = module.split(".")[0]
        if top == "flowstream":
            if module != "flowstream" or (name is not None and name not in public):
                found.append(f"{module}.{name}: not a public name of flowstream")
        elif top not in sys.stdlib_module_names | PIPELINES_MAY_USE | {"pipelines"}:
            found.append(f"{module}: not among {sorted(PIPELINES_MAY_USE)}")
    return found


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "file", sources("flowstream"), ids=lambda file: str(file.relative_to(ROOT))
)
def test_rooms_import_only_what_they_may(file: Path) -> None:
    room = room_of(file)
    assert room in ROOMS.keys() | TOP, f"{room} is no room of the table"
    found = trespasses(room, file.read_text(), package_of(file))
    assert found == []


@pytest.mark.parametrize("file", sources("pipelines"), ids=lambda file: str(file.relative_to(ROOT)))
def test_example_applications_use_only_the_face(file: Path) -> None:
    found = pipeline_trespasses(file.read_text())
    assert found == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("protocol", "import anyio"),
        ("protocol", "from flowstream.client import Environment"),
        ("errors", "from flowstream.telemetry import Event"),
        ("client", "from flowstream.protocol.chunk import Chunk"),
        ("client", "from ..protocol.chunk import Chunk"),
        ("client", "import flowstream.protocol.chunk"),
        ("client", "def f():\n    from flowstream import pipeline"),
        ("pipeline", "from flowstream.client import Environment"),
        ("pipeline", "from flowstream import Pipeline"),
        ("broker", "import flowstream.client"),
        ("testing", "from flowstream.cli import main"),
        ("cli", "from flowstream.client.environment import Environment"),
    ],
)
def test_trespasses_are_found(room: str, line: str) -> None:
    assert trespasses(room, line, f"flowstream.{room}")


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("protocol", "import zlib\nfrom flowstream.errors import ProtocolError"),
        ("protocol", "from .chunk import Chunk\nfrom flowstream.protocol.chunk import Chunk"),
        ("client", "import anyio\nfrom flowstream.protocol import Publish"),
        (
            "client",
            "from flowstream import __version__, protocol\nfrom ..errors import FlowstreamError",
        ),
        ("cli", "from flowstream import Pipeline\nfrom flowstream.client import Environment"),
    ],
)
def test_proper_imports_are_not_trespasses(room: str, line: str) -> None:
    assert not trespasses(room, line, f"flowstream.{room}")


@pytest.mark.parametrize(
    "line",
    ["from flowstream.client import Environment", "import requests", "import flowstream.cli"],
)
def test_trespasses_of_example_applications_are_found(line: str) -> None:
    assert pipeline_trespasses(line)
