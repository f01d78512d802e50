"""What the docstrings and signatures of public names mention can be imported from a room, too."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

ROOMS = (
    *("flowstream", "flowstream.pipeline", "flowstream.connectors", "flowstream.client"),
    *("flowstream.testing", "flowstream.errors", "flowstream.telemetry", "flowstream.tracing"),
    *("flowstream.metrics", "flowstream.monitor", "flowstream.broker", "flowstream.protocol"),
)
OUTSIDE = {"NaN", "OpenMetrics", "PostgreSQL", "RabbitMQ"}
"""Words that look like names of classes."""
INTERNAL = {
    "flowstream.PostgresSink.connect": "for the sink itself",
    "flowstream.SqliteSink.connect": "for the sink itself",
    "flowstream.connectors.PostgresSink.connect": "for the sink itself",
    "flowstream.connectors.SqliteSink.connect": "for the sink itself",
    "flowstream.monitor.Board.health": "for the checks of /readyz",
    "flowstream.Slice.runs": "for the stages of a run",
    "flowstream.pipeline.Slice.runs": "for the stages of a run",
    "flowstream.testing.MemoryStream.chunk_at": "for consumers of it",
    "flowstream.testing.MemoryStream.chunks_behind": "for consumers of it",
}
"""Methods of public classes whose types are not for users."""

QUOTED = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"([A-Z]\w*)((?:\.\w+)*)(?:[(\[].*)?")
PATH = re.compile(r"flowstream(?:\.\w+)+")
CAMEL_CASE = re.compile(r"(?<![\w`.@\"/-])[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+(?![\w-])")


@cache
def exported() -> dict[str, Any]:
    """What users import, by its names in all rooms: "Retry", "flowstream.pipeline.Retry", ..."""
    found: dict[str, Any] = {}
    for name in ROOMS:
        room = importlib.import_module(name)
        own = [each for each, value in vars(room).items() if is_own(each, value, name)]
        for each in getattr(room, "__all__", own):
            found[f"{name}.{each}"] = getattr(room, each)
            found.setdefault(each, getattr(room, each))
    return found


def is_own(name: str, value: object, room: str) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", "") == room


def places(room: str) -> Iterator[tuple[str, Any]]:
    """Each class, function, public method and property of a room, by its path."""
    for name, value in exported().items():
        if name.rpartition(".")[0] != room or not isinstance(value, type | types.FunctionType):
            continue
        yield name, value
        for each, member in vars(value).items() if isinstance(value, type) else ():
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "__func__", function)
            if not each.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{each}", function


def exists(path: str) -> bool:
    """Whether a path such as Pipeline.start leads to something; what __init__ sets counts."""
    first, *rest = path.split(".")
    value = exported().get(first, getattr(builtins, first, None))
    for at, name in enumerate(rest):
        if value is None:
            return False
        if at == len(rest) - 1 and name in fields_of(value):
            return True
        value = getattr(value, name, None)
    return value is not None


def fields_of(kind: Any) -> set[str]:
    written = isinstance(kind, type) and kind.__module__.startswith("flowstream")
    made = inspect.getsource(kind) if written else ""
    return {*getattr(kind, "__annotations__", ()), *re.findall(r"\bself\.(\w+)\b[^=\n]* = ", made)}


def unknown_names(text: str) -> Iterator[str]:
    for quoted in QUOTED.findall(text):
        if PATH.fullmatch(quoted):
            if not is_importable(quoted):
                yield quoted
        elif (match := NAME.fullmatch(quoted)) and not exists(match[1] + match[2]):
            yield quoted
    for word in CAMEL_CASE.findall(text):
        if word not in OUTSIDE and not exists(word):
            yield word


def is_importable(path: str) -> bool:
    if path in exported():
        return True
    try:
        importlib.import_module(path)
    except ImportError:
        room, _, name = path.rpartition(".")
        return room in ROOMS and hasattr(importlib.import_module(room), name)
    return True


def types_of(place: Any) -> set[type]:
    """The classes of flowstream in the annotations of a function, or of a class's fields."""
    try:
        hints = typing.get_type_hints(place)
    except NameError:  # of an extra that is imported for type checkers only
        return set()
    found: set[type] = set()
    left: list[Any] = [hint for name, hint in hints.items() if not name.startswith("_")]
    while left:
        hint = left.pop()
        left += hint if isinstance(hint, list) else typing.get_args(hint)
        if isinstance(hint, type) and hint.__module__.startswith("flowstream."):
            found.add(hint)
    return {kind for kind in found if not kind.__name__.startswith("_")}


@pytest.mark.parametrize("room", ROOMS)
def test_what_docstrings_name_is_exported(room: str) -> None:
    wrong = {
        path: names
        for path, place in places(room)
        if (names := sorted(set(unknown_names(inspect.getdoc(place) or ""))))
    }
    assert wrong == {}


@pytest.mark.parametrize("room", ROOMS)
def test_the_types_of_public_signatures_are_exported(room: str) -> None:
    public = {value for value in exported().values() if isinstance(value, type)}
    wrong = {
        path: sorted(kind.__qualname__ for kind in hidden)
        for path, place in places(room)
        if (hidden := types_of(place) - public) and path not in INTERNAL
    }
    assert wrong == {}


def test_every_exception_is_still_needed() -> None:
    public = {value for value in exported().values() if isinstance(value, type)}
    for path in INTERNAL:
        assert types_of(dict(places(path.rpartition(".")[0].rpartition(".")[0]))[path]) - public


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Raises `Halted`; see `Pipeline.start(url=...)` and `Halted.messages`.", []),
        ("See `flowstream.client.Environment` and `flowstream.testing`.", []),
        ("See `Pipeline.begin` and `Slot`.", ["Pipeline.begin", "Slot"]),
        ("See `flowstream.client.Outbox`.", ["flowstream.client.Outbox"]),
        ("Raises ConfigurationError or SlotLost of RabbitMQ.", ["SlotLost"]),
    ],
)
def test_names_are_found(text: str, unknown: list[str]) -> None:
    assert list(unknown_names(text)) == unknown
