"""What all connections of an environment have in common. Checked when it is made."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from flowstream.checks import check_kind, check_seconds, check_whole

from .backoff import Backoff

log = logging.getLogger("flowstream.client")

MOST = (1 << 31) - 1


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
            check_seconds(name, getattr(self, name))
        if self.recovery_timeout is not None:
            check_seconds("recovery_timeout", self.recovery_timeout)
        check_kind("backoff", self.backoff, Backoff, "a Backoff(...) of flowstream.client")
        if self.frame_max != 0:  # no limit
            check_whole("frame_max", self.frame_max, 4096, MOST)
        check_whole("heartbeat", self.heartbeat, 0, MOST)
        check_whole("per_connection", self.per_connection, 1, 256)
        check_whole("node_attempts", self.node_attempts, 1)
