"""Checks what users' functions return: no coroutine that was never awaited, no unusable key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from flowstream.pipeline.message import Message
from flowstream.texts import interrupts, type_name

UNFINISHED = (CoroutineType, GeneratorType, AsyncGeneratorType)
NO_VALUES = frozenset({Message, *UNFINISHED})


def discard(answer: Any) -> None:
    """Close a coroutine that will not be awaited, so that Python does not warn about it."""
    if type(answer) is CoroutineType:
        answer.close()


def map_all(
    function: Callable[[Any], Any], items: Sequence[Any]
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Call a user's function with each item.

    Returns the results in order (None if it raised), and (index, error) of each item that it raised
    for. The loop runs in C; it is left and entered again at an exception. An interrupt is not
    caught.
    """
    results: list[Any] = []
    bad: list[tuple[int, BaseException]] = []
    rest = map(function, items)
    while len(results) < len(items):
        error: BaseException = StopIteration()  # what ends an iteration without an exception
        try:
            results.extend(rest)
        except BaseException as raised:
            if interrupts(raised):
                raise
            error = raised
        if len(results) < len(items):
            bad.append((len(results), error))
            results.append(None)
    return results, bad


def hash_of(key: Any) -> int:
    """The hash of a partition key; TypeError for a value that cannot be a key.

    A message or coroutine equals only itself, so each message would be a partition of its own.
    """
    if type(key) in NO_VALUES:
        discard(key)
        raise TypeError(f"a {type_name(key)} cannot be a key; return a value such as an id")
    return hash(key)
