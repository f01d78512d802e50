"""The bodies that are published: real orders, of the lengths that real messages have.

A body is a purchase of pipelines/data as JSON, with the carrier that ships it and a note that pads
it to its length. Lengths and carriers are drawn, always with the same seed, from what was counted
in another real data set (recorded.json): 90 to 130 bytes with several peaks, and 16 carriers of
very different sizes. With bodies of one length a parser could take a shortcut that real streams do
not allow.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
ORDERS = Path(__file__).parents[2] / "pipelines" / "data" / "cdnow_orders.csv.gz"
NOTE = "please ring twice, else leave it with the neighbours on the left"

KEY = slice(7, 9)
"""Where a body has its carrier: a skewed key, known without decoding."""


@cache
def distinct() -> list[bytes]:
    """A body for each order of the log."""
    draw = random.Random(13)
    with gzip.open(ORDERS, "rt", newline="") as file:
        orders = list(csv.DictReader(file))
    lengths = _drawn(draw, RECORDED["lengths"], len(orders))
    carriers = _drawn(draw, RECORDED["carriers"], len(orders))
    return [
        _body(order, carrier, int(length))
        for order, carrier, length in zip(orders, carriers, lengths, strict=True)
    ]


def bodies(count: int) -> list[bytes]:
    """`count` bodies: the distinct ones, over and over."""
    return list(islice(cycle(distinct()), count))


def slices(count: int, size: int) -> Iterator[list[bytes]]:
    """The same bodies in lists of `size`, made when they are asked for."""
    endless = cycle(distinct())
    for first in range(0, count, size):
        yield list(islice(endless, min(size, count - first)))


def _drawn(draw: random.Random, counted: dict[str, int], count: int) -> list[str]:
    return draw.choices(list(counted), list(counted.values()), k=count)


def _body(order: dict[str, str], carrier: str, length: int) -> bytes:
    head = (
        f'{{"by":"{carrier}","id":{order["order_id"]},"customer":{order["customer_id"]},'
        f'"date":"{order["date"]}","cds":{order["quantity"]},"amount":{order["amount"]},"note":"'
    )
    return f'{head}{NOTE[: max(0, length - len(head) - 2)]}"}}'.encode()
