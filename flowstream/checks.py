"""Checks of numbers, times, names and kinds, shared by every room and every source of options.

Each `check_*` raises a ConfigurationError of the form `option=value: expected ...`. Options are
checked when an object is made, so a wrong one is reported before anything is sent to a broker.
"""

from __future__ import annotations

import unicodedata

from flowstream.errors import ConfigurationError
from flowstream.texts import shown

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


def check_secret(option: str, value: object) -> None:
    """A string that SASL PLAIN can transmit. The error does not show it."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{option}: expected a string, not {type(value).__name__}")
    if "\0" in value or value.encode(errors="replace").decode() != value:
        raise ConfigurationError(
            f"{option}: expected a string without NUL characters and lone surrogates, which cannot "
            "be sent to a broker"
        )


def longest_stream(virtual_host: str) -> int:
    """The most bytes that the name of a stream of this virtual host may have.

    RabbitMQ stores a stream in a directory named VIRTUAL-HOST_NAME_TIME, where TIME has 19 digits,
    and file systems accept names of at most 255 bytes. If the directory cannot be created, the
    stream never gets a replica, and deleting it makes the node's coordinator retry endlessly.
    """
    return max(1, _FOLDER_NAME - _AROUND - len(virtual_host.encode(errors="replace")))


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
