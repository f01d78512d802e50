"""The commands that are about the connection itself, as values (see `commands` for the others).

Source: the protocol document, sections "Commands" and "Authentication".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowstream.protocol.values import CommandVersion, Key


@dataclass(frozen=True, slots=True)
class PeerProperties:
    """Section PeerProperties."""

    correlation_id: int
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PeerPropertiesResponse:
    """The server's product, version and the like."""

    correlation_id: int
    code: int
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SaslHandshake:
    """Section SaslHandshake."""

    correlation_id: int


@dataclass(frozen=True, slots=True)
class SaslHandshakeResponse:
    """The SASL mechanisms the server offers."""

    correlation_id: int
    code: int
    mechanisms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class SaslAuthenticate:
    """Section SaslAuthenticate; `data` is a secret and stays out of the repr."""

    correlation_id: int
    mechanism: str
    data: bytes | None

    def __repr__(self) -> str:
        return f"SaslAuthenticate({self.correlation_id}, {self.mechanism!r}, data=***)"


@dataclass(frozen=True, slots=True)
class SaslAuthenticateResponse:
    """Authenticated (code 1), to be continued (code 10, with a challenge), or refused."""

    correlation_id: int
    code: int
    challenge: bytes | None = None


@dataclass(frozen=True, slots=True)
class Tune:
    """Section Tune: the largest frame in bytes and the heartbeat in seconds; 0 is no limit."""

    frame_max: int
    heartbeat: int


@dataclass(frozen=True, slots=True)
class TuneResponse:
    """The client's half of Tune with the response bit; servers accept a plain `Tune`, too."""

    frame_max: int
    heartbeat: int


@dataclass(frozen=True, slots=True)
class Open:
    """Section Open."""

    correlation_id: int
    virtual_host: str


@dataclass(frozen=True, slots=True)
class OpenResponse:
    """The connection's properties, with the advertised host and port; none on errors."""

    correlation_id: int
    code: int
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Close:
    """Section Close; sent by either side, and answered."""

    correlation_id: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Section Heartbeat."""


@dataclass(frozen=True, slots=True)
class ExchangeCommandVersions:
    """Section ExchangeCommandVersions: what the client understands."""

    correlation_id: int
    commands: tuple[CommandVersion, ...]


@dataclass(frozen=True, slots=True)
class ExchangeCommandVersionsResponse:
    """What the server understands."""

    correlation_id: int
    code: int
    commands: tuple[CommandVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to the command of this key, if it is only a code."""

    key: Key
    correlation_id: int
    code: int
