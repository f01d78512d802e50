"""What a number, a time and a name may be, the same in every room and wherever they come from.

Wrong options are refused before anything is sent: by their name, with what would be right.
"""

from __future__ import annotations

import unicodedata

from flowstream.errors import ConfigurationError
from flowstream.texts import shown, type_name

MAX_NAME = 255
"""Bytes of a name or a reference, at most."""
MOST_FILTER_VALUE = 32_767
"""Bytes of a filter value; "" is the same as to have none."""
MOST_WHOLE = (1 << 63) - 1
MOST_SECONDS = 1e9
"""Three decades: more is a mistake, and longer than timers of event loops can wait."""
MOST_FACTOR = 1e3
"""Of a backoff: to the power of 64 it still is a number."""

_FOLDER_NAME = 255
_AROUND = len("_") + len("_1234567890123456789")


def is_whole(value: object, least: int, most: int | None = None) -> bool:
    """Whether it is a whole number from `least` to `most`; True and False are none."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return number and least <= value <= (MOST_WHOLE if most is None else most)  # type: ignore[operator]


def is_number(value: object, least: float, most: float) -> bool:
    """Whether it is a number from `least` to `most`, and so a finite one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value <= most  # type: ignore[operator]


def is_seconds(value: object) -> bool:
    """Whether it is a time in seconds, more than 0."""
    return value != 0 and is_number(value, 0, MOST_SECONDS)


def is_name(value: object) -> bool:
    """Whether it is a name: a string of 1 to 255 bytes without control characters."""
    return not _expected(value, 1, MAX_NAME) and not _controls(value)


def check_whole(option: str, value: object, least: int, most: int | None = None) -> None:
    """A whole number from `least` on, up to `most`."""
    if not is_whole(value, least, most):
        limit = f"from {least} on" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{option}={shown(value)}: give a whole number {limit}")


def check_number(option: str, value: object, least: float, most: float) -> None:
    """A finite number from `least` to `most`."""
    if not is_number(value, least, most):
        raise ConfigurationError(
            f"{option}={shown(value)}: give a number from {least:g} to {most:g}"
        )


def check_seconds(option: str, value: object) -> None:
    """A time in seconds, more than 0."""
    if not is_seconds(value):
        raise ConfigurationError(
            f"{option}={shown(value)}: give seconds, more than 0 and at most {MOST_SECONDS:,.0f}"
        )


def check_text(option: str, value: object, least: int, most: int) -> None:
    """A string of `least` to `most` bytes in UTF-8."""
    if expected := _expected(value, least, most):
        raise ConfigurationError(f"{option}={shown(value)}: expected a {expected}")


def check_name(option: str, value: object) -> None:
    """A name of a stream or super stream, or a reference."""
    if isinstance(value, str) and "://" in value and "@" in value:
        raise ConfigurationError(f"{option}: expected a name, but this is an address (a URL)")
    check_text(option, value, 1, MAX_NAME)
    if _controls(value):
        raise ConfigurationError(
            f"{option}={shown(value)}: expected a name without control characters (brokers take "
            "line breaks out of names)"
        )


def check_reference(option: str, value: object) -> None:
    """The name that offsets or publishing ids are stored under; None for no name."""
    if value is not None:
        check_name(option, value)


def check_stream(option: str, value: object, virtual_host: str = "/") -> None:
    """A name that a stream of the virtual host can have; see `longest_stream`."""
    check_name(option, value)
    assert isinstance(value, str)
    most = longest_stream(virtual_host)
    if len(value.encode()) > most:
        raise ConfigurationError(
            f"{option}={shown(value)}: expected a name of 1 to {most} bytes, this one has "
            f"{len(value.encode())}; RabbitMQ cannot make the folder of such a stream"
        )


def longest_stream(virtual_host: str) -> int:
    """The bytes of a stream's name, at most.

    RabbitMQ keeps a stream in a folder named VIRTUAL-HOST_NAME_TIME with 19 digits of time, and
    file systems take names of 255 bytes. A stream whose folder cannot be made never gets a member,
    and deleting it makes the coordinator of the node retry without end.
    """
    return max(1, _FOLDER_NAME - _AROUND - len(virtual_host.encode(errors="replace")))


def check_callable(option: str, value: object, *, needed: bool = False) -> None:
    """A function; where it is not needed also None for none."""
    if not callable(value) and (needed or value is not None):
        wanted = "a function" if needed else "a function, or nothing"
        raise ConfigurationError(f"{option}={shown(value)}: give {wanted}")


def check_flag(option: str, value: object) -> None:
    """True or False, and nothing that counts as one of them: "no" would count as True."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option}={shown(value)}: give True or False")


def check_kind(
    option: str,
    value: object,
    kind: type | tuple[type, ...],
    wanted: str,
    *,
    optional: bool = False,
    secret: bool = False,
) -> None:
    """An object of the kind, `wanted` in words; `secret`: an error names its type only."""
    if isinstance(value, kind) or (optional and value is None):
        return
    said = f"{option}: it is a {type_name(value)}" if secret else f"{option}={shown(value)}"
    raise ConfigurationError(f"{said}: give {wanted}{', or nothing' if optional else ''}")


def _controls(value: object) -> bool:
    return any(unicodedata.category(sign) == "Cc" for sign in str(value))


def _expected(value: object, least: int, most: int) -> str:
    """What is expected instead of a value that will not do; empty for one that will."""
    if not isinstance(value, str):
        return f"string of {least} to {most} bytes"
    try:
        fits = least <= len(value.encode()) <= most
    except UnicodeEncodeError:
        return "string without lone surrogates, which UTF-8 cannot have"
    return "" if fits else f"string of {least} to {most} bytes"
