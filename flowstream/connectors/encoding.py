"""What a message's data is published as."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from pydantic_core import SchemaSerializer, core_schema, to_json

_ANYTHING = SchemaSerializer(core_schema.any_schema())


def encode_data(data: Any) -> bytes:
    """Bytes as they are, str as UTF-8, and anything else as JSON: models, dataclasses, dicts, ...

    Raises ValueError for what JSON cannot hold: NaN and infinity (which `1e400` is read as), text
    that is no Unicode, objects of other kinds. A model that has `ser_json_inf_nan` in its
    configuration is written as that says.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    body = to_json(data, fallback=_known)
    if b"NaN" in body or b"Infinity" in body:
        _parsed(body)
    elif b"null" in body and _became_null(data, body):
        raise ValueError("JSON has no infinity and no NaN, and a number of the data is one")
    return body


def _known(value: Any) -> Any:
    """What pydantic does not know and msgspec does."""
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"JSON cannot hold an object of the type {type(value).__name__}")


def _parsed(body: bytes) -> Any:
    """The JSON, its numbers as text: they may have more digits than Python reads."""
    return json.loads(body, parse_constant=_refuse, parse_int=str, parse_float=str)


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def _became_null(data: Any, body: bytes) -> bool:
    """Whether pydantic wrote a number of a model as null, as it does unless the model says more."""
    if getattr(type(data), "model_config", {}).get("ser_json_inf_nan") == "null":
        return False
    values = _ANYTHING.to_python(data, by_alias=True, fallback=_known, warnings=False)
    return _has_lost(values, _parsed(body))


def _has_lost(value: Any, written: Any) -> bool:
    if isinstance(value, float):
        return written is None and not math.isfinite(value)
    if isinstance(value, dict) and isinstance(written, dict):
        return any(key in written and _has_lost(it, written[key]) for key, it in value.items())
    if isinstance(value, list | tuple) and isinstance(written, list):
        return any(map(_has_lost, value, written))
    return False
