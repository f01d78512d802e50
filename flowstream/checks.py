"""Checks of numbers, times, names and kinds, shared by every room and every source of options.

Each `check_*` raises a ConfigurationError of the form `option=value: expected ...`. Options are
checked when an object is made, so a wrong one is reported before anything is sent to a broker.
"""

from __future__ import annotations

import unicodedata

from flowstream.errors import ConfigurationError
from flowstream.texts import shown, type_name

MAX_NAME = 255
"""Bytes of the longest name or reference: brokers refuse longer ones."""
MOST_FILTER_VALUE = 32_767
"""Bytes of the longest filter value: its length is a signed 16-bit number on the wire."""
MOST_WHOLE = (1 << 63) - 1
MOST_SECONDS = 1e9
"""About 30 years. Event loops cannot wait much longer, and a longer time is a mistake."""
MOST_FACTOR = 1e3
"""The largest factor of a backoff: a larger one could overflow a float after 64 attempts."""

_FOLDER_NAME = 255
_AROUND = len("_") + len("_1234567890123456789")


def is_whole(value: object, least: int, most: int | None = None) -> bool:
    """Whether `value` is an int from `least` to `most`. A bool is not, although it is an int."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return number and least <= value <= (MOST_WHOLE if most is None else most)  # type: ignore[operator]


def is_number(value: object, least: float, most: float) -> bool:
    """Whether `value` is a finite number from `least` to `most`; NaN and bools are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value <= most  # type: ignore[operator]


def is_seconds(value: object) -> bool:
    """Whether `value` is a duration in seconds: more than 0, at most MOST_SECONDS."""
    return value != 0 and is_number(value, 0, MOST_SECONDS)


def is_name(value: object) -> bool:
    """Whether `value` is a string of 1 to 255 bytes without control characters."""
    return not _expected(value, 1, MAX_NAME) and not _controls(value)


def check_whole(option: str, value: object, least: int, most: int | None = None) -> None:
    """An int from `least` to `most`, or without an upper limit."""
    if not is_whole(value, least, most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{option}={shown(value)}: expected a whole number {limit}")


def check_number(option: str, value: object, least: float, most: float) -> None:
    """A finite number from `least` to `most`."""
    if not is_number(value, least, most):
        raise ConfigurationError(
            f"{option}={shown(value)}: expected a number from {least:g} to {most:g}"
        )


def check_seconds(option: str, value: object) -> None:
    """A duration in seconds: more than 0, at most MOST_SECONDS."""
    if not is_seconds(value):
        raise ConfigurationError(
            f"{option}={shown(value)}: expected a number of seconds, more than 0 and at most "
            f"{MOST_SECONDS:,.0f}"
        )


def check_text(option: str, value: object, least: int, most: int) -> None:
    """A string of `least` to `most` bytes in UTF-8."""
    if expected := _expected(value, least, most):
        raise ConfigurationError(f"{option}={shown(value)}: expected a {expected}")


def check_name(option: str, value: object) -> None:
    """A name of a stream or super stream, or a reference."""
    if isinstance(value, str) and "://" in value and "@" in value:  # it may hold a password
        raise ConfigurationError(f"{option}: expected a name, but this is an address (a URL)")
    check_text(option, value, 1, MAX_NAME)
    if _controls(value):
        raise ConfigurationError(
            f"{option}={shown(value)}: expected a name without control characters (brokers remove "
            "line breaks from names)"
        )


def check_reference(option: str, value: object) -> None:
    """The name that offsets or publishing ids are stored under; None for no name."""
    if value is not None:
        check_name(option, value)


def check_stream(option: str, value: object, virtual_host: str = "/") -> None:
    """A name that a stream of this virtual host can have; see `longest_stream`."""
    check_name(option, value)
    assert isinstance(value, str)
    most = longest_stream(virtual_host)
    if len(value.encode()) > most:
        raise ConfigurationError(
            f"{option}={shown(value)}: expected a name of 1 to {most} bytes, this one has "
            f"{len(value.encode())}; RabbitMQ cannot create a directory for a longer name"
        )


def longest_stream(virtual_host: str) -> int:
    """The most bytes that the name of a stream of this virtual host may have.

    RabbitMQ stores a stream in a directory named VIRTUAL-HOST_NAME_TIME, where TIME has 19 digits,
    and file systems accept names of at most 255 bytes. If the directory cannot be created, the
    stream never gets a replica, and deleting it makes the node's coordinator retry endlessly.
    """
    return max(1, _FOLDER_NAME - _AROUND - len(virtual_host.encode(errors="replace")))


def check_callable(option: str, value: object, *, needed: bool = False) -> None:
    """A function. None is accepted too, unless it is `needed`."""
    if not callable(value) and (needed or value is not None):
        wanted = "a function" if needed else "a function or None"
        raise ConfigurationError(f"{option}={shown(value)}: expected {wanted}")


def check_flag(option: str, value: object) -> None:
    """True or False. Other values are refused: as a condition the string "no" would be true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option}={shown(value)}: expected True or False")


def check_kind(
    option: str,
    value: object,
    kind: type | tuple[type, ...],
    wanted: str,
    *,
    optional: bool = False,
    secret: bool = False,
) -> None:
    """An instance of `kind`; `wanted` describes it. With `secret` the error hides the value."""
    if isinstance(value, kind) or (optional and value is None):
        return
    expected = f"expected {wanted}{' or None' if optional else ''}"
    if secret:
        raise ConfigurationError(f"{option}: {expected}, not an object of type {type_name(value)}")
    raise ConfigurationError(f"{option}={shown(value)}: {expected}")


def _controls(value: object) -> bool:
    return any(unicodedata.category(sign) == "Cc" for sign in str(value))


def _expected(value: object, least: int, most: int) -> str:
    """What is expected instead of `value`; empty if `value` is valid."""
    if not isinstance(value, str):
        return f"string of {least} to {most} bytes"
    try:
        fits = least <= len(value.encode()) <= most
    except UnicodeEncodeError:
        return "string without lone surrogates, which UTF-8 cannot encode"
    return "" if fits else f"string of {least} to {most} bytes"
