"""What of a delivered body is payload: an AMQP 1.0 message's data, or the whole of a plain body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flowstream.client import AmqpMessage, data_of, data_of_all, is_amqp


class AmqpCodec:
    """Reads both kinds; a body that does not begin as AMQP 1.0 messages do is plain."""

    def payload(self, raw: bytes, /) -> bytes:
        return data_of(raw)

    def payloads(self, raws: list[bytes], /) -> list[bytes]:
        return data_of_all(raws)

    def properties(self, raw: bytes, /) -> Mapping[str, Any]:
        found = AmqpMessage(raw).properties if is_amqp(raw) else None
        if found is None:
            return {}
        return {name: value for name, value in asdict(found).items() if value is not None}

    def application_properties(self, raw: bytes, /) -> Mapping[str, Any]:
        return (AmqpMessage(raw).application_properties or {}) if is_amqp(raw) else {}
