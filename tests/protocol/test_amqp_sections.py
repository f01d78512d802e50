"""Which bodies are AMQP messages: the descriptor of a section in any of its forms."""

from __future__ import annotations

import pytest

from flowstream import protocol as p


@pytest.mark.parametrize(
    "descriptor", ["a3 10 616d71703a646174613a62696e617279", "80 0000000000000075", "53 75"]
)
def test_descriptors_may_be_symbols_and_wide(descriptor: str):
    raw = b"\x00" + bytes.fromhex(descriptor) + b"\xa0\x02hi"
    assert p.AmqpMessage(raw).data == b"hi"
    subject = p.encode_message(properties=p.Properties(subject="s")).removesuffix(b"\x00Sw\x40")
    assert p.data_of(subject + raw) == b"hi"
