"""Text from messages, names and errors of others, safe for terminals, and JSON of any value. Pure.

`visible` escapes everything that a terminal would interpret. `json_text` writes valid JSON of any
value: numbers keep every digit, and values that JSON does not have are written in the closest form.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from flowstream.texts import LOG_LIMIT, text_of

MAX_NESTING = 500
"""The nesting up to which a body is shown as JSON. Programs that read it have limits too."""

MAX_LEVELS = 100
"""The nesting up to which a Python value is written as JSON."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)
"""A string or a bracket. A string without its end matches too, so that no text is scanned twice."""
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_SPACE = str.maketrans("\t\r\n", "   ")


class Verbatim(str):
    """JSON that `json_text` writes unchanged."""

    __slots__ = ()


class NotShown(ValueError):
    """A text looks like JSON and cannot be shown as JSON, for the reason given."""


def visible(text: str, keep: str = "") -> str:
    """The text with everything escaped that is not printable, except the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def shortened(text: str, limit: int, rest: str = "") -> str:
    """At most `limit` characters of a text, followed by `rest` if some are left out."""
    return text if len(text) <= limit else f"{text[:limit]}… {rest}".rstrip()


def verbatim(text: str) -> Verbatim:
    """A JSON text in one line, otherwise unchanged: `12345678901234567890.10` keeps every digit.

    Raises ValueError if the text is not JSON, and NotShown if there is more to say about it.
    """
    depth = nesting(text)
    if depth > MAX_NESTING:
        raise NotShown(f"nested {depth:,} deep, and JSON is shown up to {MAX_NESTING}")
    json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    return Verbatim(text.translate(_SPACE).strip())


def _refuse(constant: str) -> None:
    raise NotShown(f"{constant} is not JSON")


def nesting(text: str) -> int:
    """The nesting of a JSON text; 0 if it has too few brackets to exceed MAX_NESTING."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return 0
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        depth += _STEP.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Valid JSON of any value, in one line unless it is indented.

    Bytes become `{"base64": ...}`, and numbers that are not finite become strings. Other objects
    become their `str()`, and so do values that contain themselves or are nested more than
    MAX_LEVELS deep. Keys become text. A mapping with two keys of the same text becomes a list of
    pairs.
    """
    text = _encoded(value, None if indent is None else "\n", " " * (indent or 0), ())
    if text.isascii() and text.isprintable():
        return text

    def escaped(match: re.Match[str]) -> str:
        c = match[0]
        if c == "\n" or (c.isprintable() and not ascii_only):
            return c
        return json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f"

    return _NOT_ASCII.sub(escaped, text)


def _encoded(value: Any, line: str | None, step: str, within: tuple[int, ...]) -> str:
    """`line` is the line end with the indentation of this level (None for one line). `within` has
    the ids of the values that contain this one."""
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        value = {"base64": base64.b64encode(value).decode()}
    if id(value) in within or len(within) > MAX_LEVELS:
        return _scalar(value)
    within = (*within, id(value))
    deeper = None if line is None else line + step
    if isinstance(value, Mapping):
        keys = list(map(_key, value))
        if len(set(keys)) < len(keys):
            return _encoded([list(pair) for pair in value.items()], line, step, within)
        pairs = zip(keys, value.values(), strict=True)
        items = [f"{_scalar(key)}: {_encoded(item, deeper, step, within)}" for key, item in pairs]
        return _joined("{", items, "}", line, deeper)
    if isinstance(value, list | tuple | set | frozenset):
        return _joined(
            "[", [_encoded(item, deeper, step, within) for item in value], "]", line, deeper
        )
    return _scalar(value)


def _joined(
    first: str, items: Iterable[str], last: str, line: str | None, deeper: str | None
) -> str:
    if not items:
        return first + last
    if deeper is None:
        return first + ", ".join(items) + last
    return f"{first}{deeper}{f',{deeper}'.join(items)}{line}{last}"


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float.__repr__(value)
        value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = value if isinstance(value, str) else text_of(value, LOG_LIMIT)
    return json.dumps(text, ensure_ascii=False)


def _key(key: Any) -> str:
    if isinstance(key, bytes):
        return base64.b64encode(key).decode()
    if key is None or isinstance(key, bool | int | float):
        return _scalar(key).strip('"')
    return key if isinstance(key, str) else text_of(key)
