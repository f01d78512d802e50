"""Creating streams and super streams, also while another process creates the same ones.

RabbitMQ answers that a stream exists before it has a leader, and that a super stream exists before
it has partitions. So `exist_ok` waits until what exists can be used: a program that is started on
two machines at once finds the same on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from flowstream.errors import (
    StreamAlreadyExists,
    StreamDoesNotExist,
)
from flowstream.protocol import Code, Command, Metadata, MetadataResponse, Response

from .connecting.connection import raise_for_code
from .connecting.manager import ConnectionManager
from .connecting.partitions import read_partitions

LOOK_AGAIN = 0.05
ASKED_TOGETHER = 100
UNCHANGED = 1.0
"""Seconds after which fewer partitions than asked for are taken for all that there are."""


async def create(
    manager: ConnectionManager,
    make: Callable[[int], Command],
    action: str,
    name: str,
    *,
    exist_ok: bool,
) -> bool:
    """Sends the command `make`; False if what it creates exists already, and may."""
    answer = await (await manager.locator.get()).request(make, Response)
    if answer.code == Code.STREAM_ALREADY_EXISTS and exist_ok:
        return False
    raise_for_code(answer.code, action, stream=name)
    return True


async def wait_for_leaders(manager: ConnectionManager, streams: Sequence[str]) -> None:
    """Waits until all streams have a leader, for `request_timeout` seconds at most.

    Streams that are without a leader for longer exist all the same: their users report it.
    """
    with anyio.move_on_after(manager.settings.request_timeout):
        for first in range(0, len(streams), ASKED_TOGETHER):
            while True:
                if await _have_leaders(manager, tuple(streams[first : first + ASKED_TOGETHER])):
                    break
                await anyio.sleep(LOOK_AGAIN)


async def _have_leaders(manager: ConnectionManager, streams: tuple[str, ...]) -> bool:
    answer = await manager.locator.request(lambda c: Metadata(c, streams), MetadataResponse)
    return all(
        entry.code != Code.STREAM_NOT_AVAILABLE
        and (entry.code != Code.OK or entry.leader in answer.brokers)
        for entry in answer.streams
    )


async def wait_for_partitions(
    manager: ConnectionManager, name: str, wanted: Sequence[str]
) -> Sequence[str]:
    """The partitions of a super stream that exists, once it has all that it is going to have.

    They are bound one after the other. An existing super stream may have other partitions than the
    `wanted` ones. Raises StreamAlreadyExists if there are none after `request_timeout` seconds:
    then the name belongs to another exchange, or a creation failed halfway.
    """
    found: list[str] = []
    since = anyio.current_time()
    while True:
        before = found
        try:
            found = await read_partitions(manager, name)
        except StreamDoesNotExist:
            found = []
        if len(found) >= len(wanted) or found != list(wanted[: len(found)]):
            return found
        now = anyio.current_time()
        if found != before:
            since = now
        if found and now - since >= UNCHANGED:
            return found
        if now - since >= manager.settings.request_timeout:
            raise StreamAlreadyExists(
                f'cannot create super stream "{name}": it has no partitions, but an exchange of '
                f"this name or one of the streams {', '.join(wanted[:3])} exists; delete it, or "
                "use another name",
                stream=name,
            )
        await anyio.sleep(LOOK_AGAIN)
