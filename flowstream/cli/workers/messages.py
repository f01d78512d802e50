"""What a parent and its workers tell each other: JSON objects in frames of bounded size. No I/O.

worker -> parent    loaded      its modules are imported; does it need a broker? its drain_timeout
parent -> worker    broker      the broker to use
worker -> parent    prepared    the broker answers and the streams exist
worker -> parent    turn        a pipeline is about to subscribe, and waits for its turn
parent -> worker    subscribe   it is its turn: subscribe, or hand over and subscribe again
worker -> parent    subscribed  the pipeline has subscribed to all partitions
parent -> worker    ask         an HTTP request of the live page, /metrics or a probe
worker -> parent    answer      its response
parent -> worker    drain       finish, commit and end; abort: end without what is in flight
worker -> parent    result      how the run of the worker ended
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

MAX_FRAME = 16 * 1024 * 1024
"""Bytes of a message. A snapshot or the metrics of many partitions are the largest."""

HEADER = 4


class BadFrame(Exception):
    """What was received is no message: too large, or no JSON object with a kind."""


def encoded(message: Message) -> bytes:
    """A message as a frame. Raises BadFrame if it is too large."""
    body = json.dumps(message).encode()
    if len(body) > MAX_FRAME:
        raise BadFrame(f"a message of {len(body):,} bytes, above {MAX_FRAME:,}")
    return len(body).to_bytes(HEADER, "big") + body


def size_of(header: bytes) -> int:
    """The size of the message that follows. Raises BadFrame before anything is allocated."""
    size = int.from_bytes(header, "big")
    if size > MAX_FRAME:
        raise BadFrame(f"a message of {size:,} bytes, above {MAX_FRAME:,}")
    return size


def decoded(body: bytes) -> Message:
    """The message in a frame."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise BadFrame("a message that is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise BadFrame("a message without a kind")
    return message
