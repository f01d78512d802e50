"""The tree of commands, as the parser has it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from flowstream.cli.app import command_tree

Words = tuple[str, ...]


def commands(command: Any = None, words: Words = ()) -> Iterator[tuple[Words, Any]]:
    """Every command and group with its words; the root has none."""
    command = _root() if command is None else command
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(child, (*words, name))


def leaves() -> Iterator[tuple[Words, Any]]:
    """The commands that do something."""
    return ((words, command) for words, command in commands() if not hasattr(command, "commands"))


@functools.cache
def _root() -> Any:
    """Built once: several files are parametrized with the commands."""
    return command_tree()
