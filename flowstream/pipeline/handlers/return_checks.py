"""What callbacks return and cannot mean: what nobody awaited, and keys that are none."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from flowstream.pipeline.message import Message
from flowstream.texts import type_name

UNFINISHED = (CoroutineType, GeneratorType, AsyncGeneratorType)
_NO_KEYS = frozenset({Message, *UNFINISHED})


def discard(answer: Any) -> None:
    """Close a coroutine that nobody will await, so that Python does not complain about it."""
    if type(answer) is CoroutineType:
        answer.close()


def hash_of(key: Any) -> int:
    """The hash of a partition key; TypeError for what is no key.

    Messages and coroutines are all different: no two messages would be of one partition.
    """
    if type(key) in _NO_KEYS:
        discard(key)
        raise TypeError(f"a {type_name(key)} is no key; return a value such as an id")
    return hash(key)
