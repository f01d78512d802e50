"""Checks what functions of the user return: coroutines that nobody awaited, unusable keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from flowstream.pipeline.message import Message
from flowstream.texts import interrupts, type_name

UNFINISHED = (CoroutineType, GeneratorType, AsyncGeneratorType)
NO_KEYS = frozenset({Message, *UNFINISHED})


def discard(answer: Any) -> None:
    """Close a coroutine that nobody will await, so that Python does not complain about it."""
    if type(answer) is CoroutineType:
        answer.close()


def map_all(
    function: Callable[[Any], Any], items: Sequence[Any]
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """What a function of the user's makes of each item; None where it raised.

    Returns that in order, and (index, error) of each item that it raised for. The loop is C's: it
    is left and entered again where the function raises. An interrupt is not caught.
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
    """The hash of a partition key; TypeError for what is no key.

    Messages and coroutines are all different: no two messages would be of one partition.
    """
    if type(key) in NO_KEYS:
        discard(key)
        raise TypeError(f"a {type_name(key)} is no key; return a value such as an id")
    return hash(key)
