"""Codecs of sub-entries, behind one interface.

gzip is in the standard library; snappy (framed), lz4 (frame) and zstd come from cramjam, imported
when first used (the extra `compression`). Numbers: protocol document, "Publish".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

from flowstream.errors import NotSupported, ProtocolError


class Compression(IntEnum):
    """How the data of a sub-entry is compressed."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class CompressionCodec(NamedTuple):
    """One codec; `decompress(data, size)` gives at most `size + 1` bytes, or raises anything."""

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def _gunzip(data: bytes, size: int) -> bytes:
    """One member or several, up to a byte more than announced."""
    parts: list[bytes] = []
    room = size + 1
    while data and room:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(data, room))
        if not member.eof and len(parts[-1]) < room:
            raise ProtocolError("gzip data is cut off")
        room -= len(parts[-1])
        data = member.unused_data
    return b"".join(parts)


def _gzip(data: bytes) -> bytes:
    return zlib.compress(data, wbits=31)


def _from_cramjam(name: str) -> CompressionCodec:
    try:
        import cramjam
    except ImportError:
        raise NotSupported(
            f"{name} needs a codec (the extra compression): pip install cramjam"
        ) from None
    module: Any = getattr(cramjam, name)

    def decompress(data: bytes, size: int) -> bytes:
        room = bytearray(size + 1)
        return bytes(memoryview(room)[: module.decompress_into(data, room)])

    return CompressionCodec(lambda data: bytes(module.compress(data)), decompress)


@cache
def codec_of(compression: Compression) -> CompressionCodec:
    """The codec. Raises NotSupported, which names the extra, if it is not installed."""
    if compression is Compression.NONE:
        return CompressionCodec(bytes, lambda data, _: bytes(data))
    if compression is Compression.GZIP:
        return CompressionCodec(_gzip, _gunzip)
    return _from_cramjam(compression.name.lower())


def compress(compression: Compression, data: bytes) -> bytes:
    """The compressed data."""
    return codec_of(compression).compress(data)


def decompress(compression: Compression, data: bytes, size: int) -> bytes:
    """The `size` bytes that `data` holds; ProtocolError if it holds anything else.

    Never takes memory for more than `size + 1` bytes of result.
    """
    decompressor = codec_of(compression).decompress
    try:
        result = decompressor(data, size)
    except MemoryError:
        raise
    except Exception as error:  # each library has its own class for damaged data
        raise ProtocolError(f"{compression.name.lower()} data is damaged: {error}") from None
    if len(result) != size:
        raise ProtocolError(
            f"a {compression.name.lower()} sub-entry does not have its announced {size} bytes"
        )
    return result
