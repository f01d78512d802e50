"""Runs of entries of one size: found and cut by a few C calls for all of them.

Entries follow one another without an index, so each length must be read to find the next. Where
the length word at a fixed stride repeats, the chain is proven for the whole run at once: the first
entry leads to the second, that one says the same length, and so on.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from struct import Struct

PROBE = 512
"""How many entries must be equal before they are cut as a run and not one by one."""
WORTH = 16
_GROUP = 16


def run_length(data: bytes, position: int, stride: int, most: int) -> int:
    """How many 4-byte words at `position`, `position + stride`... are equal, up to `most`.

    All of the entries, `stride` bytes each from the first word on, lie inside `data`.
    """
    most = min(most, (len(data) - position) // stride)
    for column in (3, 2, 1, 0):
        if most <= 0:
            return 0
        first = position + column
        values = data[first : first + stride * (most - 1) + 1 : stride]
        most = len(values) - len(values.lstrip(values[:1]))
    return most


@lru_cache(256)
def _cutters(form: str) -> tuple[Struct, Struct]:
    return Struct(">" + form), Struct(">" + form * _GROUP)


def cut(data: bytes, position: int, form: str, count: int) -> list[bytes]:
    """The values of `count` records of this `struct` form (big endian) in a row."""
    one, group = _cutters(form)
    whole = count - count % _GROUP
    view = memoryview(data)
    middle = position + whole * one.size
    grouped = group.iter_unpack(view[position:middle])
    single = one.iter_unpack(view[middle : position + count * one.size])
    return list(chain.from_iterable(chain(grouped, single)))
