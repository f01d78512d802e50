"""Reads bodies that are AMQP 1.0 messages; other bodies stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from flowstream.client import (
    AmqpMessage,
    data_of,
    data_of_all,
    is_amqp,
    payload_of,
    plain_value,
)


class AmqpCodec:
    """The payload is the data section, or the value. Other sections are decoded on demand."""

    def body(self, raw: bytes, /) -> bytes:
        return data_of(raw)

    def bodies(self, raws: list[bytes], /) -> list[bytes]:
        return data_of_all(raws)

    def payload(self, raw: bytes, /) -> Any:
        return payload_of(raw)

    def plain(self, value: Any, /) -> Any:
        return plain_value(value)

    def properties(self, raw: bytes, /) -> Mapping[str, Any]:
        properties = AmqpMessage(raw).properties if is_amqp(raw) else None
        if properties is None:
            return {}
        values = ((field.name, getattr(properties, field.name)) for field in fields(properties))
        return {name: value for name, value in values if value is not None}

    def application_properties(self, raw: bytes, /) -> Mapping[str, Any]:
        return (AmqpMessage(raw).application_properties or {}) if is_amqp(raw) else {}

    def message_annotations(self, raw: bytes, /) -> Mapping[Any, Any]:
        return (AmqpMessage(raw).message_annotations or {}) if is_amqp(raw) else {}


AMQP = AmqpCodec()
