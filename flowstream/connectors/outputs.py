"""What a StreamSink makes of a message: the bodies to publish, and the key that routes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowstream.client import AmqpMessage, encode_data_all
from flowstream.pipeline import Message
from flowstream.texts import type_name

Key = str | Callable[[Message[Any]], str | int]
Encode = Callable[[Any], bytes | Sequence[bytes]]


def outputs_of(encode: Encode, data: Any) -> list[bytes]:
    """The bodies that data is encoded to: one, or those of a list. Raises TypeError for others."""
    found: Any = encode(data)
    if type(found) is bytes:
        return [found]
    bodies = list(found) if isinstance(found, list | tuple) else [found]
    for body in bodies:
        if not isinstance(body, bytes):
            raise TypeError(f"encode returned {type_name(body)}, not bytes")
    return bodies


def key_of(key: Key, message: Message[Any]) -> str:
    """The key of a message as a string. Raises if it has no valid key."""
    data = message.data
    if callable(key):
        found: Any = key(message)
    elif isinstance(data, Mapping):
        if key not in data:
            raise LookupError(f"the data has no field {key!r}, which is the key")
        found = data[key]
    else:
        found = getattr(data, key)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(int(found))
    if not isinstance(found, str):
        raise TypeError(f"the key is a {type_name(found)}, and must be a string or an int")
    return str.__str__(found).encode().decode()  # raises for lone surrogates


def head_of(application_properties: Mapping[str, str]) -> bytes:
    """The bytes of an AMQP message before its data section."""
    empty = AmqpMessage.of(b"", application_properties=application_properties).raw
    return empty.removesuffix(encode_data_all([b""])[0])
