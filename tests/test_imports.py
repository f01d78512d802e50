"""Imports go one way (see ARCHITECTURE.md): between the rooms, and between the files of a room.

Across rooms a module imports the room (`from flowstream.protocol import Publish`), never
a file in it. Imports inside functions and under TYPE_CHECKING count as well: two files that need
each other's types are one idea in two places.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowstream

ROOT = Path(__file__).resolve().parents[1]

ROOMS = {
    "version": set[str](),
    "errors": set[str](),
    "backoff": {"checks", "schema"},  # one class for handlers (pipeline) and connections (client)
    "tls": {"errors", "texts", "schema"},  # for brokers (client) and the flags of commands (cli)
    "texts": set[str](),
    "signals": set[str](),
    "blocks": {"signals"},
    "checks": {"errors", "texts"},
    "schema": {"errors", "texts", "checks"},
    "telemetry": {"texts"},
    "protocol": {"errors"},
    "client": {
        "errors",
        "texts",
        "backoff",
        "checks",
        "schema",
        "signals",
        "blocks",
        "telemetry",
        "tls",
        "protocol",
    },
    "pipeline": {
        *("errors", "texts", "backoff", "checks", "schema", "signals", "telemetry", "version"),
        "blocks",
    },
    "connectors": {
        *("errors", "texts", "backoff", "checks", "schema", "telemetry", "client", "pipeline"),
    },
    "broker": {"errors", "texts", "checks", "schema", "blocks", "telemetry", "protocol"},
    "metrics": {"telemetry", "version"},
    "tracing": {"errors", "texts", "version"},
    "monitor": {"errors", "texts", "metrics", "schema", "telemetry", "version", "pipeline"},
    "testing": {
        *("errors", "texts", "checks", "schema", "telemetry", "protocol", "client"),
        *("pipeline", "connectors", "broker", "metrics"),
    },
}
# These may import any room, and no room imports them.
TOP = {"cli", "__init__", "__main__"}
STANDARD_LIBRARY_ONLY = {
    "version",
    "errors",
    "backoff",
    "tls",
    "texts",
    "checks",
    "schema",
    "telemetry",
    "protocol",
}
# The codecs of compressed sub-entries are an extra, imported when one is first met.
EXTRAS = {("protocol", "cramjam")}
# The rooms inside client/, and which of them each may import.
CLIENT = {"connecting": set[str](), "publishing": {"connecting"}, "consuming": {"connecting"}}
# Rooms whose files form no import circle; add a room as soon as it has none.
WITHOUT_CIRCLES = [
    *("broker", "cli", "client", "connectors", "metrics", "monitor", "pipeline", "protocol"),
    "testing",
]
# What the generator of grafana/ may use, which is no part of the package.
GENERATOR_MAY_USE = {"flowstream.metrics", "flowstream.monitor", "grafana", "yaml"}
# Of the repository, and no part of the package.
TOOLS = {"grafana", "tests", "pipelines", "yaml"}
# What the example applications may use beside flowstream and the standard library.
PIPELINES_MAY_USE = {"anyio", "msgspec", "pydantic"}


@functools.cache
def imports_of(source: str, package: str) -> tuple[tuple[str, str | None], ...]:
    """Each import as (module, name): `import a.b` is ("a.b", None)."""
    return tuple(_imports_of(source, package))


def _imports_of(source: str, package: str) -> Iterator[tuple[str, str | None]]:
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


def generator_trespasses(source: str) -> list[str]:
    """What a module of grafana/generate imports and must not."""
    return [
        module
        for module, _ in imports_of(source, "grafana.generate")
        if module.split(".")[0] not in sys.stdlib_module_names
        and not {module, module.split(".")[0]} & GENERATOR_MAY_USE
    ]


def import_graph(files: dict[str, str]) -> dict[str, set[str]]:
    """For each module of `files` (name: source) the others of them that it imports."""
    modules = {name.removesuffix(".__init__") for name in files}
    graph: dict[str, set[str]] = {}
    for name, source in files.items():
        module = name.removesuffix(".__init__")
        package = module if module != name else name.rpartition(".")[0]
        found = set()
        for imported, attribute in imports_of(source, package):
            file = f"{imported}.{attribute}"  # `from room import file`
            found.add(file if file in modules else imported)
        graph[module] = (found & modules) - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules in which each one reaches each other one by imports."""
    reached = {module: {module} | found for module, found in graph.items()}
    for middle in graph:
        for found in reached.values():
            if middle in found:
                found |= reached[middle]
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "file", sources("flowstream"), ids=lambda file: str(file.relative_to(ROOT))
)
def test_rooms_import_only_what_they_may(file: Path) -> None:
    room = room_of(file)
    assert room in ROOMS.keys() | TOP, f"{room} is no room of the table"
    source, package = file.read_text(), package_of(file)
    assert trespasses(room, source, package) == []
    tops = {module.split(".")[0] for module, _ in imports_of(source, package)}
    assert not tops & TOOLS, "the package uses no tools of the repository"


@pytest.mark.parametrize("room", WITHOUT_CIRCLES)
def test_the_files_of_a_room_form_no_import_circle(room: str) -> None:
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text()
        for file in sources(f"flowstream/{room}")
    }
    assert len(files) > 1, f"{room} is no room with files"
    assert circles(import_graph(files)) == []


@pytest.mark.slow
def test_the_package_has_no_import_circle() -> None:
    """The same over all rooms, with the face that users import from."""
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text()
        for file in sources("flowstream")
    }
    graph = import_graph(files)
    assert len(graph) > 200
    assert circles(graph) == []


@pytest.mark.parametrize("file", sources("grafana"), ids=lambda file: file.name)
def test_the_generator_of_dashboards_uses_rooms_only(file: Path) -> None:
    assert generator_trespasses(file.read_text()) == []


@pytest.mark.parametrize("room", CLIENT)
def test_rooms_of_the_client_import_only_what_they_may(room: str) -> None:
    for file in sources(f"flowstream/client/{room}"):
        for module, _ in imports_of(file.read_text(), package_of(file)):
            path = module.split(".")
            if path[:2] == ["flowstream", "client"]:
                assert path[2:3], f"{file.name} imports the client as a whole"
                assert path[2] in CLIENT[room] | {room}, f"{file.name} imports {module}"


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
        ("metrics", "from flowstream import __version__"),
        ("cli", "import flowstream"),
        ("protocol", "from flowstream.version import __version__"),
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
            "from flowstream import errors, protocol\nfrom ..errors import FlowstreamError",
        ),
        ("metrics", "from flowstream.version import __version__"),
        ("cli", "from flowstream.pipeline import Pipeline\nfrom flowstream import errors"),
    ],
)
def test_proper_imports_are_not_trespasses(room: str, line: str) -> None:
    assert not trespasses(room, line, f"flowstream.{room}")


def test_trespasses_of_the_generator_are_found() -> None:
    assert generator_trespasses("import flowstream.metrics.catalogue")
    assert generator_trespasses("from flowstream.client import Environment")
    assert not generator_trespasses("from flowstream.metrics import CATALOGUE\nimport yaml, json")


@pytest.mark.parametrize(
    "line",
    ["from flowstream.client import Environment", "import requests", "import flowstream.cli"],
)
def test_trespasses_of_example_applications_are_found(line: str) -> None:
    assert pipeline_trespasses(line)


def test_circles_are_found() -> None:
    files = {
        "room.__init__": "from room.a import A\nfrom room.lone import B",
        "room.a": "from room import b",
        "room.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import C",
        "room.c": "def f():\n    import room.a",
        "room.lone": "from room.a import A\nimport os",
    }
    graph = import_graph(files)
    assert graph["room"] == {"room.a", "room.lone"}
    assert graph["room.a"] == {"room.b"}
    assert circles(graph) == [["room.a", "room.b", "room.c"]]
    files["room.c"] += "\nfrom room import A"
    assert circles(import_graph(files)) == [["room", "room.a", "room.b", "room.c", "room.lone"]]
