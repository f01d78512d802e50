"""Names of folders and files that are safe for every stream name and partition value. Pure.

Names come from messages and brokers. So they must not leave the directory, hide a file from readers
(a leading "." or "_"), or be too long for a file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote
from uuid import UUID

from flowstream.texts import shown, type_name

MANIFEST = "_flowstream"
"""The folder of the manifest; readers of datasets leave out names that begin with "_"."""
LONGEST = 100
"""The longest escaped name, in bytes. A longer one is cut and ends with its hash."""
LONGEST_VALUE = 200
"""The longest escaped partition value, in bytes. A cut one would be another value."""
NULL = "__HIVE_DEFAULT_PARTITION__"
"""The value of a partition folder for None, as in Hive."""


def safe(name: str) -> str:
    """The name with unsafe characters escaped, and cut if it is too long."""
    escaped = _escape(name)
    if len(escaped) <= LONGEST:
        return escaped
    # No other escaped name has a "~", so a cut name is never the name of another stream.
    return f"{escaped[:LONGEST]}~{sha256(name.encode()).hexdigest()[:24]}"


def folder_of(values: Mapping[str, Any]) -> str:
    """The folder of a partition: `day=2026-11-29/region=eu`. Raises for invalid values."""
    return "/".join(f"{_key(key)}={_value(key, value)}" for key, value in values.items())


def data_name(stream: str, offsets: tuple[int, int], attempt: str, suffix: str) -> str:
    """The name of a data file: stream, first and last offset, and the attempt that wrote it."""
    return f"{safe(stream)}-{offsets[0]:012d}-{offsets[1]:012d}-{attempt}.{suffix}"


def log_folder(reference: str, stream: str) -> str:
    """The folder of the manifest for a reference and a stream."""
    return f"{reference_folder(reference)}/{safe(stream)}"


def reference_folder(reference: str) -> str:
    """The folder of the manifest for a reference."""
    return f"{MANIFEST}/{safe(reference)}"


def _escape(name: str) -> str:
    escaped = (
        quote(name, safe="").replace("~", "%7E") or "%"
    )  # messages outside a pipeline have no stream
    return f"%{ord(escaped[0]):02X}{escaped[1:]}" if escaped[:1] in {".", "_"} else escaped


def _key(key: Any) -> str:
    escaped = _escape(key) if isinstance(key, str) else ""
    if not key or not 0 < len(escaped) <= LONGEST:
        raise ValueError(f"{shown(key)} is not the name of a partition: expected a short string")
    return escaped


def _value(key: str, value: Any) -> str:
    if value is None:
        return NULL
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str | int | UUID):
        text = str(value)
    elif isinstance(value, date | datetime):
        text = value.isoformat()
    else:
        raise TypeError(
            f"the partition value {key}={shown(value)} is a {type_name(value)}: expected a string, "
            "a whole number, a bool, a date, a datetime, a UUID or None"
        )
    if not text:
        raise ValueError(f"the partition value of {key} is an empty string, which names no folder")
    escaped = quote(text, safe="")
    if not escaped.strip("."):
        escaped = escaped.replace(".", "%2E")
    elif escaped == NULL:  # a string that would be read as None
        escaped = escaped.replace("_", "%5F", 1)
    if len(escaped) > LONGEST_VALUE:
        raise ValueError(
            f"the partition value {key}={shown(value)} has {len(escaped)} bytes in the name of a "
            f"folder: expected at most {LONGEST_VALUE}"
        )
    return escaped
