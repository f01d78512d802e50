"""Encodes a message's data to the body that is published."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from typing import Any

from pydantic_core import SchemaSerializer, core_schema, to_json

from flowstream.texts import type_name

_ANYTHING = SchemaSerializer(core_schema.any_schema())


def encode_payload(data: Any) -> bytes:
    """Bytes as they are, str as UTF-8, and anything else as JSON: models, dataclasses, dicts, ...

    Raises ValueError for values that JSON cannot hold: NaN and infinity (which `1e400` is read as),
    strings with lone surrogates, objects of other types. A model whose configuration has
    `ser_json_inf_nan` is written accordingly.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str):
        return data.encode()
    body = to_json(data, fallback=_known)
    if b"NaN" in body or b"Infinity" in body:
        _parsed(body)
    elif b"null" in body and _became_null(data, body):
        raise ValueError("JSON has neither infinity nor NaN, but the data has such a number")
    return body


def _known(value: Any) -> Any:
    """Objects that msgspec can encode and pydantic cannot."""
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"JSON cannot hold an object of the type {type_name(value)}")


def _parsed(body: bytes, pairs: Callable[[list[Any]], Any] | None = None) -> Any:
    """Parse JSON with numbers as text, because they may have more digits than Python reads."""
    return json.loads(
        body, parse_constant=_refuse, parse_int=str, parse_float=str, object_pairs_hook=pairs
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def _became_null(data: Any, body: bytes) -> bool:
    """Whether pydantic wrote an infinite number of a model as null, which is its default."""
    if getattr(type(data), "model_config", {}).get("ser_json_inf_nan") == "null":
        return False
    values = _ANYTHING.to_python(data, by_alias=True, fallback=_known, warnings=False)
    return _has_lost(values, _parsed(body, lambda pairs: [value for _, value in pairs]))


def _has_lost(value: Any, written: Any) -> bool:
    """Compare by position, and objects by the lists of their values, because keys become text."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float):
        return written is None and not math.isfinite(value)
    if not isinstance(written, list):
        return False
    if isinstance(value, Set):  # a copy of a set may have another order
        return any(_has_lost(it, place) for it in value for place in written)
    if isinstance(value, Mapping):
        value = value.values()
    return isinstance(value, Iterable) and any(map(_has_lost, value, written))
