"""What a message's data is published as."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json


def encode_data(data: Any) -> bytes:
    """Bytes as they are, str as UTF-8, and anything else as JSON: models, dataclasses, dicts, ...

    Raises PydanticSerializationError for what JSON cannot hold.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    return to_json(data)
