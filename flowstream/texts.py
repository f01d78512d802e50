"""Text about the errors and values of users. No function here raises, whatever the object does.

An exception's `__str__`, `__repr__`, `__class__` or its class's `__name__` may raise, return
something that is not a string, or return a megabyte. So all text about an error or a value of a
user is made here. The result is an exact `str`, bounded, on one line (except tracebacks), and can
always be encoded as UTF-8. Passwords of URLs are hidden before a text is cut: afterwards nobody
could tell where they end. Types are determined with `type()`, because `isinstance` reads
`__class__`, which an object can override.
"""

from __future__ import annotations

import re
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from types import TracebackType
from typing import Any

LIMIT = 2048
"""The most characters of a text about an error."""
NAME_LIMIT = 100
SHOWN = 80
"""The most characters of a value's `repr`."""
TRACEBACK_LIMIT = 8192
LOG_LIMIT = 65_536
"""The most characters of a traceback in a log record."""
LOG_ERRORS = 200
"""The most errors (causes, and members of groups) in the traceback of a log record."""
LOG_FRAMES = 2_000
"""The most frames of a traceback that is formatted: more than the deepest recursion has. A program
that raises the same exception again and again makes a longer one, which takes seconds."""
END_FRAMES = 50
"""The frames that are formatted of a longer one."""
LEAVES = 10
"""The most errors of a group that are described."""
NAMED = 5
"""The most names that a text lists."""
WORDS = 60
"""The words of a text that decide whether another one is similar."""
FOLDED = "…"
"""The placeholder for a number or an id in `folded` text."""

_WORD = re.compile(r"\S+")
_USER = re.compile(r"://[^:/]*:")
_TOKEN = re.compile(r"([-+]?\w+(?:[.,:@/+-]\w+)*|…)")
_VOLATILE = re.compile(r"[\d@…]|\A[0-9a-fA-F]{8,}\Z|.{65}")  # no word is so long
_SEVERAL = re.compile(r"…(?:, …)+")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\t\n\r"}
_name_of = vars(type)["__name__"].__get__
_errors_of = vars(BaseExceptionGroup)["exceptions"].__get__
_traceback_of = vars(BaseException)["__traceback__"].__get__


class Unprintable(Exception):
    """Replaces an exception that cannot be formatted in a log record."""


def type_name(value: object) -> str:
    """The name of the value's class."""
    return clipped(str.__str__(_name_of(type(value))), NAME_LIMIT)


def is_a(error: object, kind: type[BaseException]) -> bool:
    """`isinstance` by the real class, which an object cannot override."""
    return issubclass(type(error), kind)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group and its nested groups, each once; else the exception itself."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if is_a(each, BaseExceptionGroup):
            waiting.extend(reversed(_errors_of(each)))
        else:
            yield each


def interrupts(error: BaseException) -> bool:
    """Whether the exception is a KeyboardInterrupt, or a group that contains one."""
    return any(is_a(leaf, KeyboardInterrupt) for leaf in leaves(error))


def describe(error: BaseException, limit: int = LIMIT) -> str:
    """The class and message of an exception, and those of a group's members, on one line."""
    name, text = type_name(error), _made(str, error, limit)
    line = f"{name}: {text}" if text else name
    if is_a(error, BaseExceptionGroup):
        found = list(leaves(error))
        line += ": " + "; ".join(_leaf(leaf, limit) for leaf in found[:LEAVES])
        if len(found) > LEAVES:
            line += f"; and {len(found) - LEAVES:,} more"
    return clipped(line, limit)


def text_of(error: object, limit: int = LIMIT) -> str:
    """The message of an error without its class; the class if the message is empty."""
    return _made(str, error, limit) or type_name(error)


def reason_of(error: BaseException, limit: int = LIMIT) -> str:
    """The message of an error, behind its class where it is only a value: KeyError: 'id'."""
    bare = any(type(error) is kind for kind in (KeyError, StopIteration, SystemExit))
    return describe(error, limit) if bare else text_of(error, limit)


def last_note(error: BaseException, limit: int = LIMIT) -> str:
    """What was added last to the exception, with `add_note`; "" if nothing was."""
    try:
        return clipped(str.__str__(error.__notes__[-1]), limit)  # where there are none it raises
    except BaseException:
        return ""


def shown(value: object, limit: int = SHOWN) -> str:
    """The value's `repr`."""
    return _made(repr, value, limit)


def record(value: Any) -> str:
    """The `repr` of a dataclass whose fields may hold errors and values of users."""
    values = (f"{each.name}={shown(getattr(value, each.name), LIMIT)}" for each in fields(value))
    return f"{type_name(value)}({', '.join(values)})"


def traceback_of(error: BaseException, limit: int = TRACEBACK_LIMIT) -> str:
    """The end of the exception's traceback, at most `limit` characters."""
    text = _formatted(error)
    if text is None:
        text = _formatted(_replacement(error)) or describe(error)
    return _encodable(without_passwords(text)[-limit:])[-limit:]


def printable(error: BaseException) -> BaseException:
    """The exception for a log record: itself, or a replacement if it cannot be formatted."""
    return error if _formatted(error) is not None else _replacement(error)


def plural(count: int, word: str, words: str | None = None) -> str:
    """`1 message`, `69,659 messages`."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def listed(texts: Collection[str], between: str = ", ") -> str:
    """`a, b and 12 more`: the first NAMED texts and the number of the others."""
    named = between.join([*texts][:NAMED])
    return named if len(texts) <= NAMED else f"{named} and {len(texts) - NAMED:,} more"


def clipped(text: str, limit: int) -> str:
    """At most `limit` characters of `text` on one line, with control characters escaped, and
    without the passwords of URLs."""
    part, cut = text[: 2 * limit], len(text) > 2 * limit
    # Of a URL at the cut, the @ may be behind it.
    part = without_passwords(f"{part}@")[:-1] if cut else without_passwords(part)
    line = " ".join(_encodable(part).translate(_CONTROLS).split())
    if len(line) <= limit and not cut:
        return line
    return line[: limit - 1] + "…"


def without_passwords(text: str) -> str:
    """`text` with *** for the password of every URL in it: errors of other libraries quote URLs."""
    return _WORD.sub(_hidden, text) if "://" in text else text


def beginning(text: str, words: int = WORDS) -> str:
    """The first words of a text. Similar texts end at the same word, however long their numbers."""
    parts = _TOKEN.split(text, maxsplit=words)
    return text if len(parts) <= 2 * words else "".join(parts[:-1]) + FOLDED


def folded(text: str) -> str:
    """The text with `FOLDED` for its numbers, ids, addresses and times: similar texts are equal."""
    parts = _TOKEN.split(text)
    parts[1::2] = (FOLDED if _VOLATILE.search(token) else token for token in parts[1::2])
    return _SEVERAL.sub(FOLDED, "".join(parts))


def common(text: str, other: str) -> str:
    """What two texts of the same `folded` form have in common: `FOLDED` where they differ."""
    ours, others = _TOKEN.split(text), _TOKEN.split(other)
    if ours[::2] != others[::2]:
        return folded(text)
    return "".join(a if a == b else FOLDED for a, b in zip(ours, others, strict=True))


def _hidden(word: re.Match[str]) -> str:
    """A word of a text, with *** for the password if it is a URL."""
    text = word[0]
    end = text.rfind("@")
    user = _USER.search(text, 0, max(end, 0))
    return text if user is None else f"{text[: user.end()]}***{text[end:]}"


def _leaf(error: BaseException, limit: int) -> str:
    text = _made(str, error, limit // LEAVES)
    return f"{type_name(error)}: {text}" if text else type_name(error)


def _made(make: Callable[[Any], str], value: object, limit: int) -> str:
    """`str(value)` or `repr(value)`; if that raises, a text that names the exception."""
    try:
        text = str.__str__(make(value))
    except BaseException as broken:
        return f"<its {make.__name__}() raised {type_name(broken)}>"
    return clipped(text, limit)


def _formatted(error: BaseException) -> str | None:
    """The whole traceback; None if it cannot be formatted or is too large."""
    try:
        if not _is_small(error):
            return None
        text = "".join(traceback.format_exception(error))
    except BaseException:
        return None
    return str.__str__(text) if len(text) <= LOG_LIMIT else None


def _is_small(error: BaseException) -> bool:
    """Whether `traceback` ends in time: it visits a group once for each of its occurrences."""
    seen: set[int] = set()
    waiting, frames = [error], 0
    for _ in range(LOG_ERRORS):
        if not waiting:
            return True
        each = waiting.pop()
        seen.add(id(each))
        frames += sum(1 for _ in _entries(each))
        if frames > LOG_FRAMES:
            return False
        if is_a(each, BaseExceptionGroup):
            waiting.extend(_errors_of(each))
        behind = (each.__cause__, each.__context__)
        waiting.extend(other for other in behind if other is not None and id(other) not in seen)
    return not waiting


def _replacement(error: BaseException) -> Unprintable:
    end = deque(_entries(error), maxlen=END_FRAMES)
    return Unprintable(describe(error)).with_traceback(end[0] if end else None)


def _entries(error: BaseException) -> Iterator[TracebackType]:
    """The entries of the exception's traceback, the outermost first."""
    entry: TracebackType | None = _traceback_of(error)
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
