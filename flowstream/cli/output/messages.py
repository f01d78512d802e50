"""Messages of a stream as text for people and as JSON for programs.

Every message is shown. If it cannot be decoded, its raw bytes are shown, and `reason` says why.
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
"""Characters of a body on a terminal. In a pipe and in JSON the body is complete."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One message, decoded.

    `body` is the payload, as JSON text if an AMQP message has a value. An AMQP message also has
    `properties` (the application's), `standard` properties and `annotations`. `reason` says what
    could not be decoded.
    """

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
        """The time of its chunk, in UTC to the second."""
        return moment(self.timestamp)

    def line(self, limit: int | None = None) -> str:
        """Offset, time and text in one line."""
        text = self.text()
        if limit is not None:
            size = f"({len(self.body):,} bytes; --json and --bodies in a pipe show all)"
            text = shortened(text, limit, size)
        return f"{self.offset}  {self.time}  {text}"

    def text(self) -> str:
        """Body and properties in one line. `--grep` searches this text."""
        named = {**self.standard, **self.properties}
        extra = "".join(f" {name}={_plain(value)}" for name, value in named.items())
        why = self.reason and f" ({self.reason})"
        return visible(self.body.decode(errors="backslashreplace") + extra + why)

    def document(self) -> dict[str, Any]:
        """The message for `json_text`: the body as JSON, else as text, else as base64 with the
        reason."""
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
    """A message from the bytes of its entry. A damaged AMQP message is shown as bytes."""
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
    """AMQP values as values that JSON has."""
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
    """Milliseconds since 1970 as a time in UTC to the second, or as a number if out of range."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{timestamp} ms"


def decoded(body: bytes) -> tuple[str, Any, str]:
    """The key and value of a body in JSON: "body" (JSON unchanged), "text" or "base64".

    The third item is the reason if the body is not shown in the form that it seems to have.
    """
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
