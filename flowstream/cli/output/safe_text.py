"""What was published, named or raised by others, as text for terminals and as JSON. Pure.

`visible` leaves nothing in a text that a terminal would act on. `json_text` gives valid JSON of
any value: numbers exact, what JSON has no place for in the nearest form that it has one for.
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
"""How deep a body's JSON may be nested to be shown as JSON: readers of it have limits, too."""

MAX_LEVELS = 100
"""How deep a value that is not text already may be nested."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)
"""A string, also one without its end (so that no text is looked at twice), or a bracket."""
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_SPACE = str.maketrans("\t\r\n", "   ")


class Verbatim(str):
    """JSON that `json_text` writes as it is."""

    __slots__ = ()


class NotShown(ValueError):
    """A text is JSON, or nearly, and yet cannot be shown as JSON; says why."""


def visible(text: str, keep: str = "") -> str:
    """The text with everything escaped that a terminal does not print, except what is in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def shortened(text: str, limit: int, rest: str = "") -> str:
    """At most `limit` characters of a text; `rest` follows where some are left out."""
    return text if len(text) <= limit else f"{text[:limit]}… {rest}".rstrip()


def verbatim(text: str) -> Verbatim:
    """A JSON text in one line, as it is: `1e400` and `12345678901234567890.10` keep every digit.

    Raises ValueError where the text is no JSON, NotShown where there is more to say about it.
    """
    depth = nesting(text)
    if depth > MAX_NESTING:
        raise NotShown(f"nested {depth:,} deep, and JSON is shown up to {MAX_NESTING}")
    json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    return Verbatim(text.translate(_SPACE).strip())


def _refuse(constant: str) -> None:
    raise NotShown(f"{constant} is not JSON")


def nesting(text: str) -> int:
    """How deep the brackets of a JSON text are nested; only as far as they could matter."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return 0
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        depth += _STEP.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Valid JSON of any value, in one line unless it is indented.

    Bytes are `{"base64": ...}`, numbers that are not finite are strings, other objects are their
    `str()`, and so is what contains itself or is nested more than MAX_LEVELS deep. Keys are text,
    and a mapping in which two keys are the same text is a list of pairs.
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
    """`line` is the line end with the indentation of this level (None for one line), `within` the
    ids of what the value is in."""
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
