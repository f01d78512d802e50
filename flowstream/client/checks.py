"""Wrong options are refused before anything is sent: by their name, with what would be right."""

from __future__ import annotations

from flowstream.errors import ConfigurationError
from flowstream.texts import shown

MAX_NAME = 255
"""Bytes of a name or a reference, at most."""


def check_whole(option: str, value: object, least: int, most: int | None = None) -> None:
    """A whole number from `least` on, up to `most`."""
    good = isinstance(value, int) and not isinstance(value, bool)
    if not good or value < least or (most is not None and value > most):  # type: ignore[operator]
        limit = f"from {least} on" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{option}={shown(value)}: give a whole number {limit}")


def check_seconds(option: str, value: object) -> None:
    """A time in seconds, more than none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ConfigurationError(f"{option}={shown(value)}: give seconds, more than 0")


def check_name(option: str, value: object) -> None:
    """A name of a stream, or a reference: 1 to 255 bytes."""
    if not isinstance(value, str) or not 0 < len(value.encode()) <= MAX_NAME:
        raise ConfigurationError(f"{option}={shown(value)}: give a text of 1 to {MAX_NAME} bytes")


def check_callable(option: str, value: object) -> None:
    """A function, or None for none."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{option}={shown(value)}: give a function, or nothing")
