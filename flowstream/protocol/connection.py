"""The connection's states: this file owns every transition, as one table, for both roles.

    HANDSHAKE ─ SaslHandshake ─> SASL ─ authenticated ─> TUNE ─ client's Tune ─> OPEN
    OPEN ─ Open's answer ─> RUNNING ─ Close ─> CLOSING ─ Close's answer ─> CLOSED

Both peers go through the same states, because each sees all that is sent; the table says which side
may send what. Source: the protocol document, section "Authentication", and otherwise
`rabbit_stream_reader`. No clock, no I/O: bytes go in, commands come out, and the reverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from struct import Struct
from typing import Any, TypeAlias

from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol import commands as c
from flowstream.protocol import session as s
from flowstream.protocol.codec import decode, encode, tag_of
from flowstream.protocol.frames import FrameReader
from flowstream.protocol.values import Address, Code, CommandVersion, Key


class Role(Enum):
    """Which end of the connection this is."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where the connection is; see the head of this file."""

    HANDSHAKE = "handshake"
    SASL = "sasl"
    TUNE = "tune"
    OPEN = "open"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


Rules: TypeAlias = dict[int, "State | dict[int, State]"]
"""Command (key with response bit) -> the next state, or the next state by response code."""

OTHERS = {b"HTTP": "HTTP", b"AMQP": "AMQP", b"SSH-": "SSH"}
"""The first bytes of other protocols, in the place of a frame's size."""

_R = 0x8000
_REQUESTS: Rules = {
    key: State.RUNNING
    for key in Key
    if key
    not in (
        Key.PUBLISH_CONFIRM,
        Key.PUBLISH_ERROR,
        Key.DELIVER,
        Key.METADATA_UPDATE,
        Key.PEER_PROPERTIES,
        Key.SASL_HANDSHAKE,
        Key.TUNE,
        Key.OPEN,
        Key.CONSUMER_UPDATE,
    )
}
_ANSWERS: Rules = {
    key | _R: State.RUNNING
    for key in _REQUESTS
    if key not in (Key.PUBLISH, Key.STORE_OFFSET, Key.HEARTBEAT, Key.CLOSE)
}
_PUSHES: Rules = {
    Key.PUBLISH_CONFIRM: State.RUNNING,
    Key.PUBLISH_ERROR: State.RUNNING,
    Key.DELIVER: State.RUNNING,
    Key.METADATA_UPDATE: State.RUNNING,
    Key.CONSUMER_UPDATE: State.RUNNING,
    Key.HEARTBEAT: State.RUNNING,
}

TABLE: dict[tuple[Role, State], Rules] = {
    (Role.CLIENT, State.HANDSHAKE): {
        Key.PEER_PROPERTIES: State.HANDSHAKE,
        Key.SASL_HANDSHAKE: State.SASL,
        Key.HEARTBEAT: State.HANDSHAKE,
    },
    (Role.SERVER, State.HANDSHAKE): {
        Key.PEER_PROPERTIES | _R: State.HANDSHAKE,
        Key.HEARTBEAT: State.HANDSHAKE,
        Key.CLOSE: State.CLOSING,
    },
    (Role.CLIENT, State.SASL): {
        Key.SASL_AUTHENTICATE: State.SASL,
        Key.HEARTBEAT: State.SASL,
    },
    (Role.SERVER, State.SASL): {
        Key.PEER_PROPERTIES | _R: State.SASL,
        Key.SASL_HANDSHAKE | _R: State.SASL,
        Key.SASL_AUTHENTICATE | _R: {
            Code.OK: State.TUNE,
            Code.SASL_CHALLENGE: State.SASL,
        },
        Key.HEARTBEAT: State.SASL,
        Key.CLOSE: State.CLOSING,
    },
    (Role.CLIENT, State.TUNE): {
        Key.TUNE: State.OPEN,
        Key.TUNE | _R: State.OPEN,
        Key.HEARTBEAT: State.TUNE,
    },
    (Role.SERVER, State.TUNE): {
        Key.TUNE: State.TUNE,
        Key.HEARTBEAT: State.TUNE,
        Key.CLOSE: State.CLOSING,
    },
    (Role.CLIENT, State.OPEN): {
        Key.OPEN: State.OPEN,
        Key.HEARTBEAT: State.OPEN,
    },
    (Role.SERVER, State.OPEN): {
        Key.OPEN | _R: {Code.OK: State.RUNNING},
        Key.HEARTBEAT: State.OPEN,
        Key.CLOSE: State.CLOSING,
    },
    (Role.CLIENT, State.RUNNING): {
        **_REQUESTS,
        Key.CONSUMER_UPDATE | _R: State.RUNNING,
        Key.CLOSE: State.CLOSING,
    },
    (Role.SERVER, State.RUNNING): {
        **_ANSWERS,
        **_PUSHES,
        Key.CLOSE: State.CLOSING,
    },
    (Role.CLIENT, State.CLOSING): {
        Key.CLOSE | _R: State.CLOSED,
        Key.HEARTBEAT: State.CLOSING,
    },
    (Role.SERVER, State.CLOSING): {
        **dict.fromkeys((*_ANSWERS, *_PUSHES), State.CLOSING),
        Key.CLOSE | _R: State.CLOSED,
    },
    (Role.CLIENT, State.CLOSED): {},
    (Role.SERVER, State.CLOSED): {},
}
"""(who sends, state) -> what may be sent and where it leads.

A code that is not listed leads to CLOSED: a refused login or virtual host ends the connection.
While CLOSING, a server may still send what it had begun; everything else is ignored.
"""

FRAME_MAX_BEFORE_OPEN = 8192
"""The largest frame that a server accepts before the login (from 4.3.5 on)."""
INBOUND_MAX = 512 << 20
"""The largest frame that a client accepts: chunks may be larger than the tuned `frame_max`."""

_UNMARKED = (Key.ROUTE, Key.PARTITIONS)
"""Answers that servers before 3.11 send without the response bit (seen on 3.10.8)."""

_TAG = Struct(">H")


def negotiate(ours: int, theirs: int) -> int:
    """A tuned value: the smaller of both, where 0 means no limit (section "Tune")."""
    return min(ours, theirs) if ours and theirs else max(ours, theirs)


class Connection:
    """One connection as bytes and commands, without a socket.

    `frame_max` (bytes) and `heartbeat` (seconds, 0: none) are this side's proposals until Tune,
    then the agreed values. `versions` are the commands that the peer understands, empty until it
    has sent them. `peer_properties` describe the peer; `advertised`, on a client, is the server's
    address.
    """

    __slots__ = (
        "_frames",
        "_inbound",
        "_inbound_max",
        "_peer",
        "advertised",
        "failure",
        "frame_max",
        "heartbeat",
        "peer_properties",
        "role",
        "state",
        "versions",
    )

    def __init__(
        self,
        role: Role,
        *,
        frame_max: int = 1 << 20,
        heartbeat: int = 60,
        inbound_max: int = INBOUND_MAX,
    ) -> None:
        self.role: Role = role
        self.frame_max: int = frame_max
        self.heartbeat: int = heartbeat
        self.versions: dict[int, CommandVersion] = {}
        self.peer_properties: Mapping[str, str] = {}
        self.advertised: Address | None = None
        self.failure: ProtocolError | None = None
        self.state: State = State.HANDSHAKE
        self._peer = Role.CLIENT if role is Role.SERVER else Role.SERVER
        self._inbound = TABLE[self._peer, self.state]
        self._inbound_max = inbound_max
        self._frames = FrameReader(FRAME_MAX_BEFORE_OPEN if role is Role.SERVER else inbound_max)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.state is State.CLOSED

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return self._frames.buffered

    def supports(self, key: int, version: int = 1) -> bool:
        """Whether the peer understands this version of a command.

        A peer that has not sent its versions counts as a server before 3.11, which knows version 1
        of the commands up to Partitions.
        """
        if not self.versions:
            return version == 1 and 0 < key <= Key.PARTITIONS
        known = self.versions.get(key)
        return known is not None and known.minimum <= version <= known.maximum

    def receive(self, data: bytes) -> list[c.Command]:
        """The commands that are complete with `data`.

        Raises ProtocolError on bytes or a command that the protocol does not allow here; the
        connection is dead then, and its error has the commands before it as `preceding`.
        """
        return self._decode(self._frames.put(data))

    def room(self) -> memoryview:
        """Where to write the next bytes, so that `filled` reads them without a copy."""
        return self._frames.room()

    def filled(self, count: int) -> list[c.Command]:
        """As `receive`, now that `count` bytes were written into the room."""
        return self._decode(self._frames.filled(count))

    def _decode(self, frames: list[memoryview]) -> list[c.Command]:
        if self.failure is not None:
            raise self.failure
        commands: list[c.Command] = []
        try:
            for frame in frames:
                self._accept(frame, commands)
            if self._frames.oversized and self.state is not State.CLOSED:
                raise ProtocolError(
                    _too_large(self._frames.oversized, self._frames.max_size),
                    code=Code.FRAME_TOO_LARGE,
                )
        except ProtocolError as error:
            error.preceding = tuple(commands)
            self.failure = error
            self._enter(State.CLOSED)
            raise
        return commands

    def _accept(self, frame: memoryview, commands: list[c.Command]) -> None:
        tag: int = _TAG.unpack_from(frame)[0] if len(frame) >= 2 else 0
        after = self._inbound.get(tag)
        unmarked = after is None and self.role is Role.CLIENT and tag in _UNMARKED
        if unmarked:
            after = self._inbound.get(tag | _R)
        if after is None:
            if self.state in (State.CLOSING, State.CLOSED):
                return
            raise ProtocolError(f"the {self._peer.value} sent {_name(tag)} while {self._where()}")
        command = decode(frame, answer=unmarked)
        commands.append(command)
        if after is not self.state:
            self._enter(_next(after, command))
        note = _NOTES.get(tag)
        if note is not None:
            note(self, command, received=True)

    def send(self, command: c.Command) -> bytes:
        """The frame of `command`; LocalProtocolError when it is out of turn or too large."""
        tag = tag_of(command)
        after = TABLE[self.role, self.state].get(tag)
        if after is None:
            raise LocalProtocolError(
                f"a {self.role.value} cannot send {_name(tag)} while {self._where()}"
            )
        data = encode(command)
        if self.role is Role.CLIENT and self.frame_max and len(data) - 4 > self.frame_max:
            raise LocalProtocolError(
                f"{_name(tag)} takes {len(data) - 4} bytes; the connection's frame_max is "
                f"{self.frame_max}",
                code=Code.FRAME_TOO_LARGE,
            )
        if after is not self.state:
            self._enter(_next(after, command))
        note = _NOTES.get(tag)
        if note is not None:
            note(self, command, received=False)
        return data

    def _enter(self, state: State) -> None:
        self.state = state
        self._inbound = TABLE[self._peer, state]
        if state is State.RUNNING and self.role is Role.SERVER:
            self._frames.max_size = self.frame_max

    def _where(self) -> str:
        return f"the connection is in the state {self.state.value!r}"

    def _note_tune(self, command: s.Tune | s.TuneResponse, *, received: bool) -> None:
        """A server sends Tune first; the client answers with what holds for both.

        A received value is negotiated with ours; a sent one is the agreed value. Servers use the
        client's heartbeat as it is.
        """
        if not received:
            self.frame_max, self.heartbeat = command.frame_max, command.heartbeat
            return
        self.frame_max = negotiate(self.frame_max, command.frame_max)
        if self.role is Role.SERVER:
            self.heartbeat = command.heartbeat
        else:
            self.heartbeat = negotiate(self.heartbeat, command.heartbeat)

    def _note_versions(
        self,
        command: s.ExchangeCommandVersions | s.ExchangeCommandVersionsResponse,
        *,
        received: bool,
    ) -> None:
        if received:
            self.versions = {version.key: version for version in command.commands}

    def _note_properties(
        self, command: s.PeerProperties | s.PeerPropertiesResponse, *, received: bool
    ) -> None:
        if received:
            self.peer_properties = command.properties

    def _note_open(self, command: s.OpenResponse, *, received: bool) -> None:
        host = command.properties.get("advertised_host")
        port = command.properties.get("advertised_port", "")
        if received and host and port.isdecimal() and len(port) <= 5:
            self.advertised = Address(host, int(port))


_NOTES: dict[int, Any] = {
    Key.TUNE: Connection._note_tune,
    Key.TUNE | _R: Connection._note_tune,
    Key.EXCHANGE_COMMAND_VERSIONS: Connection._note_versions,
    Key.EXCHANGE_COMMAND_VERSIONS | _R: Connection._note_versions,
    Key.PEER_PROPERTIES: Connection._note_properties,
    Key.PEER_PROPERTIES | _R: Connection._note_properties,
    Key.OPEN | _R: Connection._note_open,
}


def _next(after: State | dict[int, State], command: Any) -> State:
    return after.get(command.code, State.CLOSED) if isinstance(after, dict) else after


def _name(tag: int) -> str:
    """A command's name for error texts."""
    key = tag & 0x7FFF
    name = Key(key).name.lower() if key in Key.__members__.values() else f"key {key}"
    return f"{name} response" if tag & _R else name


def _too_large(size: int, most: int) -> str:
    other = OTHERS.get(size.to_bytes(4, "big"))
    if other is not None:
        return f"it speaks {other}, not the stream protocol"
    return f"a frame of {size} bytes; the most is {most}"
