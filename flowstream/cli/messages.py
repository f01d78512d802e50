"""Messages of a stream as people and programs read them: decoded where they can be."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from flowstream.errors import ProtocolError
from flowstream.protocol import AmqpMessage, Properties, is_amqp


@dataclass(frozen=True, slots=True)
class Shown:
    """One message: `body` is the payload. An AMQP message also has `properties`, the application's
    own, and `standard` ones, which the standard names."""

    stream: str
    offset: int
    timestamp: int
    body: bytes
    properties: dict[str, Any] = field(default_factory=dict)
    standard: dict[str, Any] = field(default_factory=dict)

    @property
    def time(self) -> str:
        """When its chunk was written, in UTC to the second."""
        return datetime.fromtimestamp(self.timestamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def line(self) -> str:
        """Offset, time and body in one line."""
        return f"{self.offset}  {self.time}  {self.text()}"

    def text(self) -> str:
        """Body and properties in one line: what a pattern is looked for in."""
        named = {**self.standard, **self.properties}
        extra = "".join(f" {name}={value}" for name, value in named.items())
        return printable(self.body) + printable(extra.encode())

    def document(self) -> dict[str, Any]:
        """The same for programs: the body as JSON, else as text, else as base64."""
        key, value = decoded(self.body)
        document: dict[str, Any] = {
            "stream": self.stream,
            "offset": self.offset,
            "timestamp": self.timestamp,
            key: value,
        }
        if self.properties:
            document["properties"] = self.properties
        if self.standard:
            document["standard_properties"] = self.standard
        return document


def shown(stream: str, offset: int, timestamp: int, raw: bytes) -> Shown:
    """A message from the bytes of its entry; bytes that only look like AMQP are a bare body."""
    if is_amqp(raw):
        message = AmqpMessage(raw)
        try:
            body = message.data
            if body is None:
                other = message.sequence if message.sequence is not None else message.value
                body = json.dumps(other, default=str).encode()
            properties = _plain(message.application_properties)
            return Shown(stream, offset, timestamp, body, properties, _standard(message.properties))
        except ProtocolError:
            pass  # not AMQP after all
    return Shown(stream, offset, timestamp, raw)


def _standard(properties: Properties | None) -> dict[str, Any]:
    values = {} if properties is None else asdict(properties)
    return _plain({name: value for name, value in values.items() if value is not None})


def _plain(properties: dict[str, Any] | None) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str | int | float | bool | None) else str(value)
        for name, value in (properties or {}).items()
    }


def decoded(body: bytes) -> tuple[str, Any]:
    """("body", JSON value), ("text", str) or ("base64", str)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "base64", base64.b64encode(body).decode()
    try:
        return "body", json.loads(text)
    except ValueError:
        return "text", text


def printable(body: bytes) -> str:
    """The body in one line of text; what no terminal should get is escaped."""
    text = body.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
