"""What all connections of an environment have in common. Checked when it is made."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from flowstream.errors import ConfigurationError

from .backoff import Backoff

log = logging.getLogger("flowstream.client")


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are in seconds, sizes in bytes.

    `recovery_timeout` bounds one outage: a publisher or consumer that could not be attached again
    for so long gives up with the last error (None: never). `missing_timeout` is the same while
    the stream itself is missing, as it is between a deletion and a new creation.
    """

    frame_max: int = 1_048_576
    heartbeat: int = 60
    connect_timeout: float = 10.0
    request_timeout: float = 10.0
    close_timeout: float = 5.0
    backoff: Backoff = field(default_factory=Backoff)
    recovery_timeout: float | None = None
    missing_timeout: float = 30.0
    per_connection: int = 256
    node_attempts: int = 10

    def __post_init__(self) -> None:
        for name in ("connect_timeout", "request_timeout", "close_timeout", "missing_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be more than 0 seconds")
        if self.frame_max != 0 and self.frame_max < 4096:
            raise ConfigurationError("frame_max must be at least 4096 bytes (0: no limit)")
        if self.heartbeat < 0:
            raise ConfigurationError("heartbeat must be 0 (off) or a number of seconds")
        if not 1 <= self.per_connection <= 256:
            raise ConfigurationError(
                "per_connection must lie between 1 and 256 (the protocol's limit)"
            )
        if self.node_attempts < 1:
            raise ConfigurationError("node_attempts must be at least 1")
