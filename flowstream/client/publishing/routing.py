"""Which partition of a super stream a message goes to, as in all other clients.

Hash routing is murmur3 (x86, 32 bits, seed 104729) of the key's UTF-8 bytes, unsigned, modulo the
number of partitions, counted in the server's order.
"""

from __future__ import annotations

from collections.abc import Sequence

import mmh3

from flowstream.errors import ConfigurationError
from flowstream.texts import shown

SEED = 104729


def hash_index(key: str, partitions: int) -> int:
    """The index of the key's partition."""
    try:
        data = key.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"key={shown(key)}: UTF-8 cannot have lone surrogates") from None
    return mmh3.hash(data, SEED, signed=False) % partitions


def hash_route(key: str, partitions: Sequence[str]) -> str:
    """The key's partition."""
    return partitions[hash_index(key, len(partitions))]
