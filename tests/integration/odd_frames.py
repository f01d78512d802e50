"""Odd frames, and odd ways to log in: more data for test_odd_requests (see odd_requests)."""

from __future__ import annotations

from struct import pack

from flowstream.protocol import (
    Close,
    Command,
    CommandVersion,
    CreateStream,
    ExchangeCommandVersions,
    Heartbeat,
    Key,
    MetadataUpdate,
    Open,
    PeerProperties,
    PublishConfirm,
    Response,
    SaslAuthenticate,
    SaslHandshake,
    Tune,
)
from tests.integration.odd_requests import GUEST, NOT_ASKED, Step, raw, step


def _breaks(send: Command | bytes, **other: str) -> list[Step]:
    return [step(send, "close 13 unknown frame", **other)]


def _too_large(**other: str) -> Step:
    return step(pack(">IHH", 1 << 20 | 1, 2, 1), "close 14 frame too large", **other)


FRAMES: dict[str, list[Step]] = {
    "unknown key": _breaks(raw(500, 1, b"\0\0\0\1")),
    "unknown version": _breaks(raw(15, 9, b"\0\0\0\1")),
    "a command cut short": _breaks(raw(13, 1, b"\0\0\0\1")),
    "bytes too many": _breaks(raw(6, 1, b"\0\0\0\1\7\7")),
    "empty frame": _breaks(pack(">I", 0), v3_10=NOT_ASKED, v4_0="closed"),
    "frame of one byte": _breaks(pack(">IB", 1, 0), v3_10=NOT_ASKED, v4_0="closed"),
    "too large": [_too_large(v3_10="silence", v4_0="silence")],
    "Tune again": _breaks(Tune(0, 0)),
    "Open again": _breaks(Open(7, "/")),
    "PeerProperties again": _breaks(PeerProperties(7, {})),
    "SaslHandshake again": _breaks(SaslHandshake(7)),
    "Deliver": _breaks(raw(8, 1, b"\0")),
    "PublishConfirm": _breaks(PublishConfirm(0, (1,))),
    "MetadataUpdate": _breaks(MetadataUpdate(6, "S")),
    "Close's answer unasked": _breaks(Response(Key.CLOSE, 1, 1)),
    "Create's answer": _breaks(Response(Key.CREATE_STREAM, 1, 1)),
    "Close": [step(Close(7, 500, "x" * 3000), "close 1; closed", v4_0="close 1")],
    "versions": [
        step(
            ExchangeCommandVersions(1, (CommandVersion(8, 1, 2),)),
            "exchange_command_versions 1: 1 2v2 5 6 7 9 10 11 12 13 14 15 22 23 24 25 28 29 30 31",
            v3_10="close 13 unknown frame",
            v4_0="exchange_command_versions 1:"
            " 1 2v2 5 6 7 9 10 11 12 13 14 15 22 23 24 25 28 29 30",
        ),
        step(Heartbeat(), ""),
    ],
    "credentials again": [
        step(
            SaslAuthenticate(7, "PLAIN", GUEST),
            "sasl_authenticate 1",
            v3_10="close 13 unknown frame",
        )
    ],
    "credentials again, wrong": [
        step(
            SaslAuthenticate(7, "PLAIN", b"\0guest\0nope"),
            "sasl_authenticate 8; closed",
            v3_10="close 13 unknown frame",
            v4_0="sasl_authenticate 8",
        )
    ],
    "credentials again, by other means": [
        step(
            SaslAuthenticate(7, "EXTERNAL", b""),
            "sasl_authenticate 20; closed",
            v3_10="close 13 unknown frame",
            v4_0="sasl_authenticate 20",
        )
    ],
    "credentials again, garbage": [
        step(
            SaslAuthenticate(7, "PLAIN", b"xx"),
            "sasl_authenticate 9; closed",
            v3_10="close 13 unknown frame",
            v4_0="sasl_authenticate 9",
        )
    ],
}

_PROPERTIES = step(PeerProperties(1, {}), "peer_properties 1")
_SASL = [_PROPERTIES, step(SaslHandshake(2), "sasl_handshake 1")]
_TUNE = "sasl_authenticate 1; tune 1048576 60"
_TUNED = [*_SASL, step(SaslAuthenticate(3, "PLAIN", GUEST), _TUNE)]
_OPENED = "open 1: advertised_host advertised_port"


def _credentials(mechanism: str, data: bytes | None, code: int) -> list[Step]:
    return [*_SASL, step(SaslAuthenticate(3, mechanism, data), f"sasl_authenticate {code}; closed")]


BEFORE_OPEN: dict[str, list[Step]] = {
    "garbage": [step(b"GET / HTTP/1.1\r\n\r\n", "closed")],
    "TLS": [step(b"\x16\x03\x01\x00\xa5\x01", "closed")],
    "SaslHandshake first": [step(SaslHandshake(2), "sasl_handshake 1; closed")],
    "SaslAuthenticate first": [
        step(
            SaslAuthenticate(3, "PLAIN", GUEST),
            "sasl_authenticate 1; closed",
            embedded="closed",
        )
    ],
    "Open first": [step(Open(1, "/"), "closed")],
    "Create first": [step(CreateStream(1, "S", {}), "closed")],
    "Close before Open": [_PROPERTIES, step(Close(2, 1, "x"), "closed")],
    "a large frame": [
        _PROPERTIES,
        step(
            PeerProperties(2, {"x": "y" * 9000}),
            "closed",
            v3_10="peer_properties 1",
            v4_0="peer_properties 1",
        ),
    ],
    "wrong password": _credentials("PLAIN", b"\0guest\0nope", 8),
    "unknown user": _credentials("PLAIN", b"\0who\0nope", 8),
    "unknown mechanism": _credentials("NOPE", GUEST, 7),
    "no credentials": _credentials("PLAIN", None, 9),
    "garbage as credentials": _credentials("PLAIN", b"guest", 9),
    "an authorization identity": _credentials("PLAIN", b"me\0guest\0guest", 9),
    "unknown virtual host": [
        *_TUNED,
        step(Tune(1 << 20, 0), ""),
        step(Open(5, "/nope"), "open 12:; closed"),
    ],
    "Open without Tune": [*_TUNED, step(Open(5, "/"), _OPENED, embedded="closed")],
    "a frame beyond a small frame_max": [
        *_TUNED,
        step(Tune(100, 0), ""),
        step(Open(5, "/"), _OPENED),
        step(pack(">IHH", 101, 2, 1), "close 14 frame too large", v3_10="silence", v4_0="silence"),
    ],
    "no frame_max": [
        *_TUNED,
        step(Tune(0, 0), ""),
        step(Open(5, "/"), _OPENED),
        _too_large(v3_10="silence", v4_0="silence"),
    ],
}
