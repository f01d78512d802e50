"""Codecs of sub-entries: round trips, interoperable framing, the missing extra."""

from __future__ import annotations

import gzip
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.errors import NotSupported, ProtocolError
from flowstream.protocol import Compression
from flowstream.protocol.compression import codec_of, compress, decompress

MAGIC = {
    Compression.GZIP: b"\x1f\x8b",
    Compression.SNAPPY: b"\xff\x06\x00\x00sNaPpY",
    Compression.LZ4: b"\x04\x22\x4d\x18",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
}


@given(st.sampled_from(Compression), st.binary(max_size=2000) | st.just(bytes(300_000)))
def test_data_survives(kind: Compression, data: bytes):
    assert decompress(kind, compress(kind, data), len(data)) == data


@pytest.mark.parametrize("kind", MAGIC)
def test_the_framing_is_the_one_that_other_clients_use(kind: Compression):
    assert compress(kind, b"some data").startswith(MAGIC[kind])


def test_gzip_of_several_members_is_read_whole():
    data = gzip.compress(b"one ") + gzip.compress(b"two")
    assert decompress(Compression.GZIP, data, 7) == b"one two"


@given(st.sampled_from(Compression), st.binary(max_size=60), st.integers(0, 70))
def test_garbage_is_a_protocol_error(kind: Compression, data: bytes, size: int):
    try:
        found = decompress(kind, data, size)
    except ProtocolError:
        return
    assert len(found) == size


@pytest.mark.parametrize("kind", [Compression.SNAPPY, Compression.LZ4, Compression.ZSTD])
def test_a_missing_codec_names_its_extra(kind: Compression, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    codec_of.cache_clear()
    try:
        with pytest.raises(NotSupported, match="pip install cramjam"):
            compress(kind, b"")
    finally:
        codec_of.cache_clear()
    assert decompress(Compression.GZIP, compress(Compression.GZIP, b"x"), 1) == b"x"
