"""Messages as text for people and as JSON for programs."""

from __future__ import annotations

import base64
import json
import math
from typing import Any
from uuid import UUID

from flowstream.cli.output.messages import decoded, shown
from flowstream.cli.output.safe_text import json_text
from flowstream.protocol import Array, Described, Properties, Symbol, UInt, encode_message


def test_amqp_messages_show_their_payload_and_properties() -> None:
    raw = encode_message(
        b"[1]",
        properties=Properties(subject="x"),
        application_properties={"why": "late\x1b", "n": 3},
    )
    message = shown("s", 7, 1_000, raw)
    assert message.line() == "7  1970-01-01T00:00:01Z  [1] subject=x why=late\\x1b n=3"
    assert json.loads(json_text(message.document())) == {
        "stream": "s",
        "offset": 7,
        "timestamp": 1_000,
        "body": [1],
        "properties": {"why": "late\x1b", "n": 3},
        "standard_properties": {"subject": "x"},
    }


def test_a_damaged_amqp_message_is_shown_as_its_bytes_with_the_reason() -> None:
    raw = b"\x00Su\xb0garbage"
    message = shown("s", 0, 0, raw)
    assert message.body == raw
    document = json.loads(json_text(message.document()))
    assert base64.b64decode(document["base64"]) == raw
    assert document["reason"].startswith("a damaged AMQP message: ")
    assert "garbage" in message.line()
    assert message.line().endswith("cut off)")


def test_bodies_are_json_text_or_base64() -> None:
    assert decoded(b'{"a":1}') == ("body", '{"a":1}', "")
    assert decoded("é".encode()) == ("text", "é", "")
    assert decoded(b"\xff\x00") == ("base64", "/wA=", "not UTF-8 at byte 0")


def test_nothing_a_terminal_should_not_get_is_printed() -> None:
    assert shown("s", 0, 0, b"a\x1b[31m\nb\xff").text() == "a\\x1b[31m\\nb\\xff"


DEEP = b"[" * 5_000 + b"]" * 5_000


AWKWARD: list[tuple[bytes, str, Any]] = [
    (b'{"a": 12345678901234567890.10}', "body", '{"a": 12345678901234567890.10}'),
    (b"[1e400, -0.0, %s]" % (b"9" * 5_000), "body", "[1e400, -0.0, " + "9" * 5_000 + "]"),
    (b'{\n  "a": [1,\t2]\r\n}', "body", '{   "a": [1, 2]  }'),
    (b'{"a": 1, "a": 2}', "body", '{"a": 1, "a": 2}'),
    (b'{"a": "\\ud800"}', "body", '{"a": "\\ud800"}'),
    (b'{"a": NaN}', "text", r'"{\"a\": NaN}"'),
    (b"[-Infinity]", "text", '"[-Infinity]"'),
    (DEEP, "text", f'"{DEEP.decode()}"'),
    (b"\xed\xa0\x80", "base64", '"7aCA"'),
    (b"\xff\xfe{\x00}\x00", "base64", '"//57AH0A"'),
    ("\x1b]0;title\x07\x9b31m\x7f\u202e".encode(), "text",
     r'"\u001b]0;title\u0007\u009b31m\u007f\u202e"'),
    (b"", "text", '""'),
    (b"x" * 2_000_000, "text", '"' + "x" * 2_000_000 + '"'),
    (encode_message(value={b"\xff": 1, UUID(int=1): b"\x00", 3: None, None: 1.5}), "body",
     '{"/w==": 1, "00000000-0000-0000-0000-000000000001": {"base64": "AA=="}, "3": null, '
     '"null": 1.5}'),
    (encode_message(value={1: "a", "1": "b"}), "body", '[[1, "a"], ["1", "b"]]'),
    (encode_message(value=[math.inf, math.nan, 2**63 - 1, UInt(1), Symbol("s")]), "body",
     '["Infinity", "NaN", 9223372036854775807, 1, "s"]'),
    (encode_message(value=Described(Symbol("d"), [Array(UInt, [UInt(1)])])), "body",
     '{"descriptor": "d", "value": [[1]]}'),
    (encode_message(sequence=[1, "\x1b"]), "body", r'[1, "\u001b"]'),
    (encode_message(b"x", application_properties={"a": b"\xff", "b": 1}), "text", '"x"'),
    (b"\x00\x53\x77" + b"\x00" * 5_000, "base64", ...),
]  # fmt: skip


def test_every_body_is_shown_exactly_and_as_json() -> None:
    for raw, key, expected in AWKWARD:
        message = shown("s", 0, 0, raw)
        text = json_text(message.document())
        document = json.loads(text, parse_int=str, parse_float=str)
        assert key in document
        if expected is not ...:
            assert f'"{key}": {expected}' in text
        told = key == "base64" or raw is DEEP or b"NaN" in raw or b"Infinity" in raw
        assert ("reason" in document) == told
        for shape in (text, json_text(message.document(), ascii_only=True), message.line()):
            assert shape.isprintable()
            shape.encode()
        assert len(message.line(500)) < 700
