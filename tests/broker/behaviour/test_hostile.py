"""Garbage, mutated sessions and commands in any order harm only the connection they come from.

All of it runs in virtual time on connections in memory. Three things must never happen: an error
inside the broker (it would be logged), other clients that are no longer served, unbounded memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowstream.broker.handlers import HANDLERS
from flowstream.broker.node import Node
from flowstream.protocol import (
    Close,
    CreateStream,
    CreateSuperStream,
    OffsetSpec,
    Open,
    PeerProperties,
    Response,
    SaslAuthenticate,
    SaslHandshake,
    Subscribe,
    Tune,
    encode,
)
from flowstream.testing import run_virtual
from tests.broker.connections import a_client, a_node, a_stranger
from tests.broker.raw import GUEST, Raw, connected, logged_in
from tests.broker.serving import served
from tests.protocol.behaviour.test_vectors import FILES, lines
from tests.protocol.strategies import command_of

NAMES = ("s", "t", "super", "super-0", "super-1")
LOGIN = (
    encode(PeerProperties(1, {}))
    + encode(SaslHandshake(2))
    + encode(SaslAuthenticate(3, "PLAIN", GUEST))
    + encode(Tune(1 << 20, 0))
    + encode(Open(4, "/"))
)
HARMLESS = [kind for kind in HANDLERS if kind not in (Close, Response)]


class Errors(logging.Handler):
    """Collects what the broker logs as its own failure."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def survives(attack: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
    """Run the attack on a broker, then see that it serves another client and holds nothing."""

    async def run() -> None:
        async with a_node() as node:
            await attack(node)
            with anyio.fail_after(3600):
                while node.connections:
                    await anyio.sleep(1)
            assert node.coordinator.groups == {}
            assert not any(stream.on_growth for stream in node.catalog.streams.values())
            async with a_client(node) as raw:
                await raw.ok(CreateStream(7, "another stream", {}))

    errors = Errors()
    logging.getLogger("flowstream").addHandler(errors)
    try:
        run_virtual(run, backend="trio")
    finally:
        logging.getLogger("flowstream").removeHandler(errors)
    assert errors.records == []


async def pour(raw: Raw, pieces: list[bytes]) -> None:
    """Send it all and read what comes, until the broker closes the connection."""
    async with anyio.create_task_group() as tasks:

        async def take() -> None:
            try:
                while True:
                    await raw.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                tasks.cancel_scope.cancel()

        tasks.start_soon(take)
        for piece in pieces:
            try:
                await raw.stream.send(piece)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=10))
def test_garbage_from_a_stranger(pieces: list[bytes]) -> None:
    async def attack(node: Node) -> None:
        async with a_stranger(node) as raw:
            await pour(raw, pieces)

    survives(attack)


@pytest.mark.medium
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10))
def test_garbage_after_a_login(pieces: list[bytes]) -> None:
    async def attack(node: Node) -> None:
        async with a_client(node) as raw:
            await pour(raw, pieces)

    survives(attack)


@pytest.mark.medium
@given(
    st.lists(
        st.tuples(st.integers(0, 35) | st.integers(0x8000, 0x8020), st.binary(max_size=60)),
        max_size=12,
    )
)
def test_frames_with_any_body(frames: list[tuple[int, bytes]]) -> None:
    """After each frame that breaks the protocol a new connection goes on with the next."""

    async def attack(node: Node) -> None:
        async with a_client(node) as raw:
            await raw.ok(CreateStream(7, "s", {}))
        for key, body in frames:
            async with a_client(node) as raw:
                frame = key.to_bytes(2) + b"\0\1" + body
                await pour(raw, [len(frame).to_bytes(4) + frame])

    survives(attack)


def at_home(command: Any, choices: list[int]) -> Any:
    """The command with names that exist, and small ids, so that it meets something."""
    changes: dict[str, Any] = {}
    for number, field in enumerate(fields(command)):
        value = getattr(command, field.name)
        choice = choices[number % len(choices)]
        if field.name in ("stream", "name", "super_stream"):
            changes[field.name] = NAMES[choice % len(NAMES)]
        elif field.name in ("publisher_id", "subscription_id"):
            changes[field.name] = choice % 3
        elif field.name in ("partitions", "streams") and isinstance(value, tuple):
            changes[field.name] = NAMES[3 : 3 + choice % 3]
        elif field.name == "binding_keys":
            changes[field.name] = ("0", "1")[: choice % 3]
        elif field.name == "properties" and choice % 2:
            changes[field.name] = {
                "name": "group",
                "single-active-consumer": "true",
                "super-stream": "super",
            }
    return replace(command, **changes)


commands = st.tuples(
    st.sampled_from(HARMLESS).flatmap(command_of),
    st.lists(st.integers(0, 9), min_size=5, max_size=5),
).map(lambda pair: at_home(*pair))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(commands, max_size=25), min_size=1, max_size=3))
def test_commands_in_any_order(conversations: list[list[Any]]) -> None:
    """Several clients at once on the same few streams; what comes back is taken or not."""

    async def attack(node: Node) -> None:
        async with a_client(node) as raw:
            await raw.ok(CreateStream(7, "s", {"stream-max-segment-size-bytes": "100"}))
            pair = ("super-0", "super-1")
            await raw.ok(CreateSuperStream(8, "super", pair, ("0", "1"), {}))

        async def converse(conversation: list[Any]) -> None:
            async with a_client(node) as raw:
                await pour(raw, [encode(command) for command in conversation])

        async with anyio.create_task_group() as tasks:
            for conversation in conversations:
                tasks.start_soon(converse, conversation)

    survives(attack)


@st.composite
def mutated_sessions(draw: st.DrawFn) -> list[bytes]:
    """What a client really sent to RabbitMQ, damaged in a few places."""
    path: Path = draw(st.sampled_from(FILES))
    pieces = [data for mark, data in lines(path) if mark == ">"]
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.integers(0, len(pieces) - 1))
        piece = bytearray(pieces[index])
        at = draw(st.integers(0, len(piece)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "swap"]))
        if how == "flip" and at < len(piece):
            piece[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del piece[at : at + draw(st.integers(1, 8))]
        elif how == "insert":
            piece[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "repeat":
            pieces.insert(index, bytes(piece))
        else:
            other = draw(st.integers(0, len(pieces) - 1))
            pieces[index], pieces[other] = pieces[other], pieces[index]
            continue
        pieces[index] = bytes(piece)
    return pieces


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(mutated_sessions())
def test_mutated_sessions(pieces: list[bytes]) -> None:
    async def attack(node: Node) -> None:
        async with a_stranger(node) as raw:
            await pour(raw, pieces)

    survives(attack)


def test_half_of_a_login_and_then_silence() -> None:
    async def attack(node: Node) -> None:
        for end in range(0, len(LOGIN), 7):
            async with a_stranger(node) as raw:
                await raw.stream.send(LOGIN[:end] or b"\0")
                while await raw.next() is not None:
                    pass

    survives(attack)


def resident(pid: int) -> int:
    """Bytes of memory the process has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.slow
@pytest.mark.anyio
async def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Unfinished frames, unread answers and unread chunks on many connections at once."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    with served(tmp_path) as (process, url):
        async with logged_in(url) as good:
            await good.ok(CreateStream(7, "s", {}))
            before = resident(process.pid)
            async with anyio.create_task_group() as tasks:
                for _ in range(60):
                    tasks.start_soon(stranger_with_a_large_frame, url)
                for _ in range(20):
                    tasks.start_soon(asker_that_does_not_read, url)
                await anyio.sleep(3)
                grown = resident(process.pid) - before
                with anyio.fail_after(5):
                    await good.ok(Subscribe(8, 0, "s", OffsetSpec.first(), 1, {}))
                tasks.cancel_scope.cancel()
        assert grown < 100 << 20, f"it grew by {grown >> 20} MiB"


async def stranger_with_a_large_frame(url: str) -> None:
    """A frame of 2 GiB that never ends, again and again."""
    while True:
        async with connected(url) as raw:
            try:
                await raw.stream.send(b"\x7f\xff\xff\xff" + b"x" * 8000)
                while True:
                    await raw.stream.send(b"x" * 100_000)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                await anyio.sleep(0.01)


async def asker_that_does_not_read(url: str) -> None:
    async with logged_in(url) as raw:
        question = encode(CreateStream(9, "s" * 200, {}))
        while True:
            await raw.stream.send(question * 500)
