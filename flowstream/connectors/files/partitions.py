"""Which folder a message belongs to: by a field of its data, or by a function. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowstream.connectors.files.names import folder_of
from flowstream.schema import Rule, is_plain
from flowstream.texts import type_name

PartitionBy = str | Callable[[Any], Mapping[str, Any]]
PARTITION_BY = Rule(
    "the name of a field, or a function of one message that returns a dict",
    lambda value: bool(value) if isinstance(value, str) else is_plain(value),
)


def values_of(field: str, data: Any) -> Mapping[str, Any]:
    """The partition of data by one of its fields. Raises if the data has no such field."""
    if isinstance(data, Mapping):
        if field not in data:
            raise LookupError(f"partition_by={field!r}: the data has no field of this name")
        return {field: data[field]}
    if isinstance(data, bytes | str):
        raise TypeError(
            f"partition_by={field!r}: the data is {type_name(data)} and has no fields; annotate "
            "the handler with a model or dict, or use a function as partition_by"
        )
    return {field: getattr(data, field)}


def folder_by(function: Callable[[Any], Mapping[str, Any]], message: Any) -> str:
    """The folder of a message by the user's function. Raises if the result cannot name one."""
    values = function(message)
    if not isinstance(values, Mapping):
        raise TypeError(
            f"partition_by returned a {type_name(values)}: expected a dict of names and values, "
            'such as {"day": message.data.day}'
        )
    return folder_of(values)
