"""Messages of a stream as people and programs read them: decoded where they can be.

Every message is shown. Where something cannot be read, the body is shown as the bytes it is, and
`reason` says why.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from flowstream.cli.output.safe_text import NotShown, json_text, shortened, verbatim, visible
from flowstream.errors import ProtocolError
from flowstream.protocol import AmqpMessage, Array, Described, is_amqp, payload_of

ON_SCREEN = 4_096
"""Characters of a body on a terminal; in a pipe and in JSON it is whole."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One message: `body` is the payload, JSON text where an AMQP message holds a value. An AMQP
    message also has `properties`, the application's own, `standard` ones, which the standard names,
    and `annotations`. `reason` says what could not be read."""

    stream: str
    offset: int
    timestamp: int
    body: bytes
    properties: dict[str, Any] = field(default_factory=dict)
    standard: dict[str, Any] = field(default_factory=dict)
    annotations: dict[Any, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def time(self) -> str:
        """When its chunk was written, in UTC to the second."""
        return moment(self.timestamp)

    def line(self, limit: int | None = None) -> str:
        """Offset, time and body in one line."""
        text = self.text()
        if limit is not None:
            size = f"({len(self.body):,} bytes; --json and --bodies in a pipe show all)"
            text = shortened(text, limit, size)
        return f"{self.offset}  {self.time}  {text}"

    def text(self) -> str:
        """Body and properties in one line: what a pattern is looked for in."""
        named = {**self.standard, **self.properties}
        extra = "".join(f" {name}={_plain(value)}" for name, value in named.items())
        why = self.reason and f" ({self.reason})"
        return visible(self.body.decode(errors="backslashreplace") + extra + why)

    def document(self) -> dict[str, Any]:
        """The same for programs, as `json_text` takes it: the body as JSON, else as text, else as
        base64 with the reason."""
        key, value, reason = decoded(self.body)
        if self.reason:
            key, value, reason = "base64", base64.b64encode(self.body).decode(), self.reason
        document: dict[str, Any] = {
            "stream": self.stream,
            "offset": self.offset,
            "timestamp": self.timestamp,
            key: value,
        }
        about = {
            "reason": reason,
            "properties": self.properties,
            "standard_properties": self.standard,
            "message_annotations": self.annotations,
        }
        return document | {name: value for name, value in about.items() if value}


def shown(stream: str, offset: int, timestamp: int, raw: bytes) -> Shown:
    """A message from the bytes of its entry; a damaged AMQP message is shown as its bytes."""
    if not is_amqp(raw):
        return Shown(stream, offset, timestamp, raw)
    message = AmqpMessage(raw)
    try:
        payload = payload_of(raw)
        standard = asdict(message.properties) if message.properties else {}
        return Shown(
            stream,
            offset,
            timestamp,
            payload if type(payload) is bytes else json_text(_readable(payload)).encode(),
            _readable(message.application_properties or {}),
            _readable({name: value for name, value in standard.items() if value is not None}),
            _readable(message.message_annotations or {}),
        )
    except ProtocolError as error:
        return Shown(stream, offset, timestamp, raw, reason=f"a damaged AMQP message: {error}")


def _readable(value: Any) -> Any:
    """AMQP's own values as what JSON has."""
    if isinstance(value, Described):
        return {"descriptor": _readable(value.descriptor), "value": _readable(value.value)}
    if isinstance(value, Array):
        return _readable(value.items)
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value).strip('"')


def moment(timestamp: int) -> str:
    """Milliseconds since 1970 as a time in UTC to the second; the number where that is none."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{timestamp} ms"


def decoded(body: bytes) -> tuple[str, Any, str]:
    """("body", the JSON as it is), ("text", str) or ("base64", str), and the reason where the body
    is not shown as what it seems to be."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        return "base64", base64.b64encode(body).decode(), f"not UTF-8 at byte {error.start}"
    try:
        return "body", verbatim(text), ""
    except NotShown as error:
        return "text", text, str(error)
    except ValueError:
        return "text", text, ""
