"""Commands to frames and back: `COMMANDS` is the one table of what every command looks like.

Source: the protocol document, section "Commands", and otherwise the behaviour of servers 3.9 to
4.3. A frame is `u32 size`, `u16 key` (top bit: response), `u16 version` and the body; each
row names the fields of the body in the order of the dataclass.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol import commands as c
from flowstream.protocol import session as s
from flowstream.protocol.entries import read_entries, read_filtered_entries
from flowstream.protocol.publish import sub_entry_bytes
from flowstream.protocol.values import Code, CommandVersion, Key, SubEntry
from flowstream.protocol.wire import (
    BOOL,
    BROKERS,
    BYTES,
    COMMAND_VERSIONS,
    ERRORS,
    LAST_OFFSET,
    MAP,
    OFFSET,
    OPTIONAL_MAP,
    REFERENCE,
    SASL_CHALLENGE,
    STATISTICS,
    STREAMS_METADATA,
    STRING,
    STRINGS,
    U8,
    U16,
    U32,
    U64,
    Field,
    Out,
    Reader,
    write_nullable_string,
)

_HEAD = struct.Struct(">IHH")
_WORD = struct.Struct(">I")
_RESPONSE_BIT = 0x8000


class Row(NamedTuple):
    """How one command is written to, and read from, the body of a frame."""

    command: type[Any]
    write: Callable[[Out, Any], None]
    read: Callable[[Reader], Any]


def _row(command: type[Any], *kinds: Field) -> Row:
    """A row whose body is these fields, in the order of the dataclass."""
    names = [field.name for field in fields(command)]
    pairs = list(zip(names, kinds, strict=True))

    def write(out: Out, value: Any) -> None:
        for name, kind in pairs:
            kind.write(out, getattr(value, name))

    def read(reader: Reader) -> Any:
        return command(*[kind.read(reader) for kind in kinds])

    return Row(command, write, read)


def _answer(command: type[Any], *kinds: Field) -> Row:
    """The row of a response with more than a code; on errors a server may end after the code."""
    whole = _row(command, U32, U16, *kinds)
    defaults = [{} if field.default is MISSING else field.default for field in fields(command)[2:]]

    def read(reader: Reader) -> Any:
        if reader.remaining != 6:
            return whole.read(reader)
        correlation_id, code = U32.read(reader), U16.read(reader)
        if code == Code.OK and kinds[0] not in (OPTIONAL_MAP, SASL_CHALLENGE):
            raise ProtocolError(f"{command.__name__} with code 1 ends after the code")
        return command(correlation_id, code, *defaults)

    return Row(command, whole.write, read)


def _simple_answer(key: Key) -> Row:
    def write(out: Out, value: s.Response) -> None:
        U32.write(out, value.correlation_id)
        U16.write(out, value.code)

    def read(reader: Reader) -> s.Response:
        return s.Response(key, U32.read(reader), U16.read(reader))

    return Row(s.Response, write, read)


def _read_all(reader: Reader) -> bytes:
    """Every byte of the frame from its key on, so that positions are those of the document."""
    reader.position = reader.end
    return bytes(reader.data)


def _write_publish(out: Out, value: c.Publish) -> None:
    U8.write(out, value.publisher_id)
    U32.write(out, len(value.messages))
    for message in value.messages:
        if isinstance(message, SubEntry):
            U64.write(out, message.publishing_id)
            out.append(sub_entry_bytes(message))
        else:
            U64.write(out, message[0])
            BYTES.write(out, message[1])


def _read_publish(reader: Reader) -> c.Publish:
    publisher_id, count = U8.read(reader), reader.count(12)
    position = reader.position
    return c.Publish(publisher_id, read_entries(_read_all(reader), position, count))


def _write_publish_filtered(out: Out, value: c.PublishFiltered) -> None:
    U8.write(out, value.publisher_id)
    U32.write(out, len(value.messages))
    for publishing_id, filter_value, body in value.messages:
        U64.write(out, publishing_id)
        write_nullable_string(out, filter_value)
        BYTES.write(out, body)


def _read_publish_filtered(reader: Reader) -> c.PublishFiltered:
    publisher_id, count = U8.read(reader), reader.count(14)
    position = reader.position
    return c.PublishFiltered(
        publisher_id, read_filtered_entries(_read_all(reader), position, count)
    )


def _write_confirm(out: Out, value: c.PublishConfirm) -> None:
    U8.write(out, value.publisher_id)
    ids = value.publishing_ids
    out.append(struct.pack(f">I{len(ids)}Q", len(ids), *ids))


def _read_confirm(reader: Reader) -> c.PublishConfirm:
    publisher_id, count = U8.read(reader), reader.count(8)
    ids = struct.unpack(f">{count}Q", reader.take(8 * count))
    return c.PublishConfirm(publisher_id, ids)


def _write_deliver_1(out: Out, value: c.Deliver) -> None:
    U8.write(out, value.subscription_id)
    out.append(value.chunk)


def _read_deliver_1(reader: Reader) -> c.Deliver:
    return c.Deliver(U8.read(reader), bytes(reader.take(reader.remaining)))


def _write_deliver_2(out: Out, value: c.Deliver) -> None:
    U8.write(out, value.subscription_id)
    U64.write(out, value.committed_chunk_id)
    out.append(value.chunk)


def _read_deliver_2(reader: Reader) -> c.Deliver:
    subscription_id, committed = U8.read(reader), U64.read(reader)
    return c.Deliver(subscription_id, bytes(reader.take(reader.remaining)), committed)


_REQUEST, _ANSWER = False, True

COMMANDS: dict[tuple[Key, bool, int], Row] = {
    (Key.DECLARE_PUBLISHER, _REQUEST, 1): _row(c.DeclarePublisher, U32, U8, REFERENCE, STRING),
    (Key.PUBLISH, _REQUEST, 1): Row(c.Publish, _write_publish, _read_publish),
    (Key.PUBLISH, _REQUEST, 2): Row(
        c.PublishFiltered, _write_publish_filtered, _read_publish_filtered
    ),
    (Key.PUBLISH_CONFIRM, _REQUEST, 1): Row(c.PublishConfirm, _write_confirm, _read_confirm),
    (Key.PUBLISH_ERROR, _REQUEST, 1): _row(c.PublishError, U8, ERRORS),
    (Key.QUERY_PUBLISHER_SEQUENCE, _REQUEST, 1): _row(
        c.QueryPublisherSequence, U32, STRING, STRING
    ),
    (Key.QUERY_PUBLISHER_SEQUENCE, _ANSWER, 1): _answer(c.QueryPublisherSequenceResponse, U64),
    (Key.DELETE_PUBLISHER, _REQUEST, 1): _row(c.DeletePublisher, U32, U8),
    (Key.SUBSCRIBE, _REQUEST, 1): _row(c.Subscribe, U32, U8, STRING, OFFSET, U16, OPTIONAL_MAP),
    (Key.DELIVER, _REQUEST, 1): Row(c.Deliver, _write_deliver_1, _read_deliver_1),
    (Key.DELIVER, _REQUEST, 2): Row(c.Deliver, _write_deliver_2, _read_deliver_2),
    (Key.CREDIT, _REQUEST, 1): _row(c.Credit, U8, U16),
    (Key.CREDIT, _ANSWER, 1): _row(c.CreditError, U16, U8),
    (Key.STORE_OFFSET, _REQUEST, 1): _row(c.StoreOffset, STRING, STRING, U64),
    (Key.QUERY_OFFSET, _REQUEST, 1): _row(c.QueryOffset, U32, STRING, STRING),
    (Key.QUERY_OFFSET, _ANSWER, 1): _answer(c.QueryOffsetResponse, U64),
    (Key.UNSUBSCRIBE, _REQUEST, 1): _row(c.Unsubscribe, U32, U8),
    (Key.CREATE_STREAM, _REQUEST, 1): _row(c.CreateStream, U32, STRING, MAP),
    (Key.DELETE_STREAM, _REQUEST, 1): _row(c.DeleteStream, U32, STRING),
    (Key.METADATA, _REQUEST, 1): _row(c.Metadata, U32, STRINGS),
    (Key.METADATA, _ANSWER, 1): _row(c.MetadataResponse, U32, BROKERS, STREAMS_METADATA),
    (Key.METADATA_UPDATE, _REQUEST, 1): _row(c.MetadataUpdate, U16, STRING),
    (Key.PEER_PROPERTIES, _REQUEST, 1): _row(s.PeerProperties, U32, MAP),
    (Key.PEER_PROPERTIES, _ANSWER, 1): _answer(s.PeerPropertiesResponse, MAP),
    (Key.SASL_HANDSHAKE, _REQUEST, 1): _row(s.SaslHandshake, U32),
    (Key.SASL_HANDSHAKE, _ANSWER, 1): _answer(s.SaslHandshakeResponse, STRINGS),
    (Key.SASL_AUTHENTICATE, _REQUEST, 1): _row(s.SaslAuthenticate, U32, STRING, BYTES),
    (Key.SASL_AUTHENTICATE, _ANSWER, 1): _answer(s.SaslAuthenticateResponse, SASL_CHALLENGE),
    (Key.TUNE, _REQUEST, 1): _row(s.Tune, U32, U32),
    (Key.TUNE, _ANSWER, 1): _row(s.TuneResponse, U32, U32),
    (Key.OPEN, _REQUEST, 1): _row(s.Open, U32, STRING),
    (Key.OPEN, _ANSWER, 1): _answer(s.OpenResponse, OPTIONAL_MAP),
    (Key.CLOSE, _REQUEST, 1): _row(s.Close, U32, U16, STRING),
    (Key.HEARTBEAT, _REQUEST, 1): _row(s.Heartbeat),
    (Key.ROUTE, _REQUEST, 1): _row(c.Route, U32, STRING, STRING),
    (Key.ROUTE, _ANSWER, 1): _answer(c.RouteResponse, STRINGS),
    (Key.PARTITIONS, _REQUEST, 1): _row(c.Partitions, U32, STRING),
    (Key.PARTITIONS, _ANSWER, 1): _answer(c.PartitionsResponse, STRINGS),
    (Key.CONSUMER_UPDATE, _REQUEST, 1): _row(c.ConsumerUpdate, U32, U8, BOOL),
    (Key.CONSUMER_UPDATE, _ANSWER, 1): _answer(c.ConsumerUpdateResponse, LAST_OFFSET),
    (Key.EXCHANGE_COMMAND_VERSIONS, _REQUEST, 1): _row(
        s.ExchangeCommandVersions, U32, COMMAND_VERSIONS
    ),
    (Key.EXCHANGE_COMMAND_VERSIONS, _ANSWER, 1): _answer(
        s.ExchangeCommandVersionsResponse, COMMAND_VERSIONS
    ),
    (Key.STREAM_STATS, _REQUEST, 1): _row(c.StreamStats, U32, STRING),
    (Key.STREAM_STATS, _ANSWER, 1): _answer(c.StreamStatsResponse, STATISTICS),
    (Key.CREATE_SUPER_STREAM, _REQUEST, 1): _row(
        c.CreateSuperStream, U32, STRING, STRINGS, STRINGS, MAP
    ),
    (Key.DELETE_SUPER_STREAM, _REQUEST, 1): _row(c.DeleteSuperStream, U32, STRING),
    (Key.RESOLVE_OFFSET_SPEC, _REQUEST, 1): _row(
        c.ResolveOffsetSpec, U32, STRING, OFFSET, OPTIONAL_MAP
    ),
    (Key.RESOLVE_OFFSET_SPEC, _ANSWER, 1): _answer(c.ResolveOffsetSpecResponse, OFFSET),
    **{
        (key, _ANSWER, 1): _simple_answer(key)
        for key in (
            Key.DECLARE_PUBLISHER,
            Key.DELETE_PUBLISHER,
            Key.SUBSCRIBE,
            Key.UNSUBSCRIBE,
            Key.CREATE_STREAM,
            Key.DELETE_STREAM,
            Key.CLOSE,
            Key.CREATE_SUPER_STREAM,
            Key.DELETE_SUPER_STREAM,
        )
    },
}
"""(key, is it a response, version) -> the command and its writer and reader."""

_ROWS: dict[int, Row] = {
    (key | (_RESPONSE_BIT if answer else 0)) << 16 | version: row
    for (key, answer, version), row in COMMANDS.items()
}
_TAGS: dict[type[Any], int] = {
    row.command: key | (_RESPONSE_BIT if answer else 0)
    for (key, answer, _), row in COMMANDS.items()
    if row.command is not s.Response
}


def _versions(last: Key) -> tuple[CommandVersion, ...]:
    highest = {key: version for key, _, version in sorted(COMMANDS) if key <= last}
    return tuple(CommandVersion(key, 1, version) for key, version in highest.items())


SERVER_VERSIONS = _versions(Key.RESOLVE_OFFSET_SPEC)
"""The versions of every command that this package understands."""
CLIENT_VERSIONS = _versions(Key.STREAM_STATS)
"""What a client may send in ExchangeCommandVersions: servers from 3.11 to 4.2 close the connection
at a key that they do not know, and 3.11 knows the keys up to StreamStats (seen with
ResolveOffsetSpec on 4.0.5)."""


def tag_of(command: c.Command) -> int:
    """The key of a command's frames, with the response bit."""
    if isinstance(command, s.Response):
        return command.key | _RESPONSE_BIT
    return _TAGS[type(command)]


def _version_of(command: c.Command) -> int:
    """The version whose fields the command has."""
    if isinstance(command, c.Deliver):
        return 1 if command.committed_chunk_id is None else 2
    return 2 if isinstance(command, c.PublishFiltered) else 1


def encode(command: c.Command, version: int | None = None) -> bytes:
    """The whole frame of a command, size prefix included; LocalProtocolError if it has none."""
    tag = tag_of(command)
    version = version or _version_of(command)
    row = _ROWS.get(tag << 16 | version)
    if row is None or row.command is not type(command):
        raise LocalProtocolError(f"{type(command).__name__} has no version {version}")
    out: Out = [b""]
    try:
        row.write(out, command)
        out[0] = _HEAD.pack(4 + sum(map(len, out)), tag, version)
    except struct.error as error:
        raise LocalProtocolError(f"cannot encode {type(command).__name__}: {error}") from None
    return b"".join(out)


def decode(frame: bytes | memoryview, *, answer: bool = False) -> c.Command:
    """The command of a frame (without its size prefix); ProtocolError if it is not one.

    With `answer` the frame is read as a response even without the response bit.
    """
    if len(frame) < 4:
        raise ProtocolError(f"a frame of {len(frame)} bytes has no key and version")
    word: int = _WORD.unpack_from(frame)[0]
    row = _ROWS.get(word | _RESPONSE_BIT << 16 if answer else word)
    if row is None:
        raise ProtocolError(f"no command has the key {word >> 16:#06x}, version {word & 0xFFFF}")
    reader = Reader(frame)
    reader.position = 4
    command: c.Command = row.read(reader)
    if reader.position != reader.end:
        raise ProtocolError(f"{reader.remaining} bytes too many in {row.command.__name__}")
    return command
