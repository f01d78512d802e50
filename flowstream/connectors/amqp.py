"""Reads bodies as AMQP 1.0 messages where they are, and as they are otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from operator import methodcaller
from typing import Any

from flowstream.client import AmqpMessage, data_of, data_of_all, is_amqp

_like_amqp = methodcaller("startswith", b"\x00S")


class AmqpCodec:
    """The payload is the data section; properties are decoded only when they are asked for."""

    def payload(self, raw: bytes, /) -> bytes:
        return data_of(raw)

    def payloads(self, raws: list[bytes], /) -> list[bytes]:
        return data_of_all(raws) if any(map(_like_amqp, raws)) else raws

    def properties(self, raw: bytes, /) -> Mapping[str, Any]:
        properties = AmqpMessage(raw).properties if is_amqp(raw) else None
        if properties is None:
            return {}
        values = ((field.name, getattr(properties, field.name)) for field in fields(properties))
        return {name: value for name, value in values if value is not None}

    def application_properties(self, raw: bytes, /) -> Mapping[str, Any]:
        return (AmqpMessage(raw).application_properties or {}) if is_amqp(raw) else {}


AMQP = AmqpCodec()
