"""Sessions captured from real servers (`capture.py`): the codec and the state machine against them.

The bytes are those of RabbitMQ 3.10.8, 4.0.5 and 4.3.6 as they were read from the socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowstream import protocol as p
from flowstream.errors import ProtocolError

FILES = sorted((Path(__file__).parents[1] / "vectors").rglob("*.txt"))
NAMES = [f"{path.parent.name}-{path.stem}" for path in FILES]
every_session = pytest.mark.parametrize("path", FILES, ids=NAMES)

UNKNOWN = bytes.fromhex("0000000800ff000100000001")
"""What the session `heartbeats` provokes a Close with."""


def lines(path: Path) -> list[tuple[str, bytes]]:
    split = (line.split(" ") for line in path.read_text().splitlines())
    return [(mark, bytes.fromhex(data)) for mark, data in split]


def frames(path: Path, direction: str) -> list[bytes]:
    reader = p.FrameReader()
    sent = [data for mark, data in lines(path) if mark == direction and data != UNKNOWN]
    return [bytes(frame) for data in sent for frame in reader.feed(data)]


def is_unmarked(path: Path, frame: bytes) -> bool:
    return path.parent.name == "3.10" and frame[:2] in (b"\x00\x18", b"\x00\x19")


def all_commands() -> Iterator[p.Command]:
    for path in FILES:
        for frame in frames(path, ">"):
            yield p.decode(frame)
        for frame in frames(path, "<"):
            yield p.decode(frame, answer=is_unmarked(path, frame))


@every_session
@pytest.mark.parametrize("direction", ["<", ">"])
def test_every_captured_frame_is_encoded_to_the_same_bytes(path: Path, direction: str):
    for frame in frames(path, direction):
        answer = direction == "<" and is_unmarked(path, frame)
        again = p.encode(p.decode(frame, answer=answer))[4:]
        expected = bytes((frame[0] | 0x80,)) + frame[1:] if answer else frame
        assert again == expected


def test_the_captures_have_every_command_of_the_table():
    found: set[Any] = set()
    for command in all_commands():
        found.add(command.key if isinstance(command, p.Response) else type(command))
    expected = {
        key if row.command is p.Response else row.command for (key, _, _), row in p.COMMANDS.items()
    }
    assert expected - found == set()


@every_session
def test_a_client_takes_the_whole_conversation(path: Path):
    connection = p.Connection(p.Role.CLIENT)
    for mark, data in lines(path):
        if mark == "<":
            connection.receive(data)
        elif data != UNKNOWN:
            assert connection.send(p.decode(data[4:])) == data
    assert connection.state is expected_end(path)


@every_session
def test_a_server_takes_the_whole_conversation(path: Path):
    connection = p.Connection(p.Role.SERVER)
    sent = p.FrameReader()
    for mark, data in lines(path):
        if mark == "<":
            for frame in sent.feed(data):
                answer = is_unmarked(path, bytes(frame))
                connection.send(p.decode(frame, answer=answer))
        elif data == UNKNOWN:
            with pytest.raises(ProtocolError, match="key 255"):
                p.Connection(p.Role.SERVER).receive(data)
        else:
            connection.receive(data)
    assert connection.state is expected_end(path)


def expected_end(path: Path) -> p.State:
    return p.State.CLOSING if path.stem == "heartbeats" else p.State.CLOSED


@every_session
def test_any_cut_of_the_bytes_gives_the_same_commands(path: Path):
    whole = b"".join(data for mark, data in lines(path) if mark == "<")
    reader = p.FrameReader()
    expected = reader.feed(whole)
    byte_by_byte = p.FrameReader()
    assert [f for i in range(len(whole)) for f in byte_by_byte.feed(whole[i : i + 1])] == expected


def chunks(name: str) -> list[p.Chunk]:
    path = next(path for path, known in zip(FILES, NAMES, strict=True) if known == name)
    decoded = (p.decode(frame) for frame in frames(path, "<") if frame[:2] == b"\x00\x08")
    return [p.Chunk.parse(command.chunk) for command in decoded]  # type: ignore[union-attr]


@pytest.mark.parametrize("version", ["3.10", "4.0", "4.3"])
def test_chunks_hold_what_was_published(version: str):
    found: list[bytes] = []
    for chunk in chunks(f"{version}-publishing"):
        chunk.verify()
        assert chunk.offset == len(found)
        found += chunk.bodies()
    bodies = [b"", b"one", p.encode_data(b"two"), bytes(300)]
    expected = bodies * 6 + [b"mixed", b"in", b"it", b"end"]
    if version != "3.10":
        expected += [b"filtered", b"unfiltered", b"empty"]
    assert found == expected


@pytest.mark.parametrize("version", ["3.10", "4.0", "4.3"])
def test_a_chunk_built_of_the_same_entries_has_the_same_bytes(version: str):
    for chunk in chunks(f"{version}-publishing"):
        built = p.build_chunk(
            [bytes(chunk.data)],
            records=chunk.records,
            offset=chunk.offset,
            timestamp=chunk.timestamp,
            epoch=chunk.epoch,
        )
        again = p.Chunk.parse(built)
        assert (again.crc, bytes(again.data)) == (chunk.crc, bytes(chunk.data))
        assert (again.records, again.offset, again.epoch) == (
            chunk.records,
            chunk.offset,
            chunk.epoch,
        )


def test_servers_before_3_11_answer_route_and_partitions_without_the_response_bit():
    (path,) = (path for path in FILES if path.match("3.10/super_streams.txt"))
    unmarked = [frame for frame in frames(path, "<") if is_unmarked(path, frame)]
    streams = [p.decode(frame, answer=True).streams for frame in unmarked]  # type: ignore[union-attr]
    names = ("vectors-super-é", "vectors-super-b", "vectors-super-c")
    assert streams == [names, names[:1], (), (), ()]


def test_a_client_tells_3_11_no_key_that_it_does_not_know():
    assert max(version.key for version in p.CLIENT_VERSIONS) == p.Key.STREAM_STATS
    assert p.CommandVersion(p.Key.DELIVER, 1, 2) in p.CLIENT_VERSIONS
