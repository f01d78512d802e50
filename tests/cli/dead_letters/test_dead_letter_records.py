"""Which messages of a dead-letter stream are dead letters."""

from __future__ import annotations

from flowstream.cli.dead_letters.dead_letter_records import record_of
from flowstream.client import encode_data, encode_message

ABOUT = {"x-pipeline": "p", "x-stream": "s", "x-offset": 7}


def test_what_is_no_letter() -> None:
    assert record_of(0, 0, b"plain") is None
    assert record_of(0, 0, encode_data(b"amqp")) is None
    assert record_of(0, 0, b"\x00Su\xb0broken") is None
    raw = encode_message(b"x", application_properties=ABOUT)
    found = record_of(3, 1_000, raw)
    assert found is not None
    assert (found.body, found.source, found.time) == (b"x", "s", "1970-01-01T00:00:01Z")
