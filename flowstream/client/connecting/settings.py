"""What all connections of an environment have in common: its options, written once."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Annotated, Final

from flowstream.backoff import Backoff
from flowstream.checks import is_whole
from flowstream.errors import ConfigurationError
from flowstream.schema import SECONDS, Bounds, check, whole

log: Final = logging.getLogger("flowstream.client")

MOST = (1 << 31) - 1
LEAST_FRAME = 4096
RECONNECT = Backoff(factor=1.1, maximum=5.0, jitter=0.5)
"""Wide jitter, since all clients of a broker lose it at the same moment. The small factor keeps
each delay at about a tenth of the outage so far: a cluster needs a second or more to elect leaders
when a node dies, and delays that double would add as much again."""

FRAME = Bounds(
    f"a whole number from {LEAST_FRAME} to {MOST} (bytes), or 0 for no limit",
    lambda value: is_whole(value, 0, MOST) and not 0 < value < LEAST_FRAME,
    most=MOST,
    whole=True,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`recovery_timeout` bounds one outage: a publisher or consumer that could not be attached
    again for so long gives up with the last error (None: never). `missing_timeout` is the same
    while the stream itself is missing, as it is between a deletion and a new creation.
    """

    heartbeat: Annotated[
        int,
        whole(0, MOST, unit="seconds"),
        "seconds between heartbeats that are asked for; 0: no heartbeats",
    ] = 60
    frame_max: Annotated[int, FRAME, "the largest frame that is asked for, in bytes"] = 1_048_576
    connect_timeout: Annotated[float, SECONDS, "seconds a connection may take"] = 10.0
    request_timeout: Annotated[float, SECONDS, "seconds the broker may take to answer"] = 10.0
    close_timeout: Annotated[float, SECONDS, "seconds that closing may take"] = 5.0
    backoff: Annotated[Backoff, "the delays between attempts to connect"] = RECONNECT
    recovery_timeout: Annotated[
        float | None, SECONDS, "seconds of an outage until its users give up; None: never"
    ] = None
    missing_timeout: Annotated[
        float, SECONDS, "seconds until the users of a stream that is missing give up"
    ] = 30.0
    per_connection: Annotated[
        int, whole(1, 256), "publishers or consumers that share a connection, at most"
    ] = 256
    node_attempts: Annotated[
        int, whole(1), "connections tried until one is to the node that is wanted"
    ] = 10

    def __post_init__(self) -> None:
        check(self)
        if not 0 < self.backoff.initial <= self.backoff.maximum:
            raise ConfigurationError(
                f"backoff={self.backoff}: to connect again takes a pause: `initial` is more than 0 "
                "and at most `maximum`"
            )

    def pause(self, attempt: int) -> float:
        """The seconds to wait after the failed attempt number `attempt` (from 1)."""
        return self.backoff.delay(attempt, random.random())
