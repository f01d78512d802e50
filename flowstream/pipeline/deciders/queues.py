"""The messages that wait for processors, and the order in which workers take them. Pure.

There are two kinds. `SliceQueue` is one queue for all workers. With one worker it is `ordered`: a
message that failed blocks everything behind it until it is settled. `KeyedQueue` keeps the order of
each key: a key belongs to a worker as long as the worker holds messages of it. Otherwise any idle
worker takes it, so the load does not depend on the hashes of the keys. A message that failed blocks
its key.

A failed message is queued again by `retry`, ahead of those that wait for it, and forgotten by
`unblock` when it is settled, passed on or given up.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Hashable
from datetime import date
from enum import Enum
from typing import Any, cast

from flowstream.pipeline.deciders.key_load import HotKey, KeyLoad
from flowstream.pipeline.message import Message
from flowstream.pipeline.slice import Slice

DIVIDED = 100
"""How many slices are divided after a worker has found their keys in other hands."""
SPARE = 1_000
"""How many orders without messages are kept, because their keys may come again; and how many keys
are remembered with their orders."""
SMALL_KEY = 64
"""The length up to which a text or bytes is remembered. A key may be as large as its message."""


class Order:
    """Messages whose order is kept. While `holder`, which failed, is not settled, the others wait.

    `sample` is where one of them was, if two of them were taken together.
    `front` is handled before all others, even while the order is blocked. `taken` is True while a
    worker holds messages of it. `number` is the hash of its key; `spread` is a hash that is the
    same in every process.
    """

    __slots__ = ("front", "holder", "listed", "number", "sample", "spread", "taken", "waiting")

    def __init__(self, number: int, key: Hashable) -> None:
        self.number: int = number
        self.spread: int = stable_hash(key)
        self.waiting: list[Message[Any]] = []
        self.front: Message[Any] | None = None
        self.holder: Message[Any] | None = None
        self.taken: bool = False
        self.listed: bool = False
        self.sample: str | None = None

    @property
    def ready(self) -> bool:
        """Whether a worker may take from it."""
        if self.taken:
            return False
        return self.front is not None or (self.holder is None and bool(self.waiting))

    @property
    def free(self) -> bool:
        """Whether no message of it is here or with a worker."""
        return not self.taken and not self.waiting and self.front is None and self.holder is None


class Queue(ABC):
    """What the two kinds have in common. `waiting` counts messages, also those that are blocked."""

    ordered: bool
    waiting: int

    @abstractmethod
    def take(self, worker: int, count: int, whole: int = 0) -> Slice[Any] | None:
        """Up to `count` messages for a worker; None if there are none that it may take."""

    @abstractmethod
    def assign(self, worker: int) -> None:
        """A message that the worker took is special: the methods below may be called for it."""

    @abstractmethod
    def release(self, worker: int) -> None:
        """The worker no longer holds any of the messages that it took."""

    @abstractmethod
    def put_back(self, worker: int, messages: list[Message[Any]]) -> None:
        """Put messages back that the worker took and must not handle yet."""

    @abstractmethod
    def retry(self, message: Message[Any]) -> None:
        """Queue a message to be handled again, ahead of all that wait."""

    @abstractmethod
    def block(self, message: Message[Any]) -> None:
        """The message failed: the messages behind it in its order wait."""

    @abstractmethod
    def is_behind(self, message: Message[Any]) -> bool:
        """Whether the message must wait for one that failed."""

    @abstractmethod
    def is_holder(self, message: Message[Any]) -> bool:
        """Whether others wait for this message, which failed."""

    @abstractmethod
    def unblock(self, message: Message[Any]) -> bool:
        """The message is settled or passed on. Returns True if others waited for it."""

    @property
    @abstractmethod
    def blocked(self) -> bool:
        """Whether messages wait for one that failed."""

    @property
    @abstractmethod
    def ready(self) -> int:
        """How many workers could find messages to take now, at most."""


class SliceQueue(Queue):
    """One queue of slices for all workers; `ordered` if there is only one worker."""

    __slots__ = ("_front", "_holder", "_slices", "ordered", "waiting")

    def __init__(self, *, ordered: bool) -> None:
        self.ordered: bool = ordered
        self.waiting: int = 0
        self._slices: deque[Slice[Any]] = deque()
        self._front: deque[Message[Any]] = deque()
        self._holder: Message[Any] | None = None

    def put(self, part: Slice[Any]) -> None:
        """Queue a slice. The queue takes it over."""
        if count := len(part):
            self._slices.append(part)
            self.waiting += count

    def take(self, worker: int, count: int, whole: int = 0) -> Slice[Any] | None:
        if self._front:
            several = 1 if self._holder is not None else min(count, len(self._front))
            self.waiting -= several
            return Slice.of([self._front.popleft() for _ in range(several)])
        if self._holder is not None or not self._slices:
            return None
        taken = self._head(count)
        found = len(taken)
        while found < count and self._slices:
            more = self._head(count - found)
            found += len(more)
            taken.extend(more)
        self.waiting -= found
        return taken

    def _head(self, count: int) -> Slice[Any]:
        first = self._slices[0]
        if len(first) <= count:
            return self._slices.popleft()
        return first.take(count)

    def assign(self, worker: int) -> None:
        pass

    def release(self, worker: int) -> None:
        pass

    def put_back(self, worker: int, messages: list[Message[Any]]) -> None:
        if messages:
            self._slices.appendleft(Slice.of(messages))
            self.waiting += len(messages)

    def retry(self, message: Message[Any]) -> None:
        if self._holder is not None:
            self._holder = message
        self._front.append(message)
        self.waiting += 1

    def block(self, message: Message[Any]) -> None:
        self._holder = message

    def is_behind(self, message: Message[Any]) -> bool:
        return self._holder is not None and self._holder is not message

    def is_holder(self, message: Message[Any]) -> bool:
        return self._holder is message

    def unblock(self, message: Message[Any]) -> bool:
        if not self.is_holder(message):
            return False
        self._holder = None
        return True

    @property
    def blocked(self) -> bool:
        return self._holder is not None

    @property
    def ready(self) -> int:
        return len(self._front) if self._holder is not None else self.waiting


class KeyedQueue(Queue):
    """Messages by key, each key in its order.

    A worker whose handler is known to be fast (`SliceSizer.whole`) takes a slice whole: it holds
    all of its keys then, and the slice stays in columns, which costs half as much for each message.
    Handlers that wait gain more from keys that are handled at the same time. So when a worker finds
    the keys of an undivided slice in other hands, this slice and the next DIVIDED ones are divided
    by their keys.
    """

    __slots__ = ("_blocked", "_divide", "_held", "_known", "_load", "_orders", "_ready",
                 "_undivided", "_whole", "ordered", "waiting")  # fmt: skip

    def __init__(self) -> None:
        self.ordered: bool = True
        self.waiting: int = 0
        self._orders: dict[int, Order] = {}
        self._known: dict[Any, Order] = {}
        """The orders of keys that came lately: one look for each message instead of its hash."""
        self._ready: deque[Order] = deque()
        self._held: dict[int, list[Order]] = {}
        self._blocked = 0
        self._load: KeyLoad[Order] = KeyLoad()
        self._undivided: deque[tuple[Slice[Any], list[Order]]] = deque()
        """Slices behind all messages that wait in orders, with the order of each message."""
        self._whole: dict[int, tuple[Slice[Any], list[Order]]] = {}
        """The slices that workers took whole, while their messages do not know their orders."""
        self._divide = 0
        """How many slices must still be divided."""

    def known(self, keys: list[Any]) -> list[Order] | None:
        """The order of each key, if all of them came before; None if one is not remembered.

        Raises what the hash or the comparison of a user's class raises.
        """
        try:
            orders = list(map(self._known.__getitem__, keys))
        except KeyError:
            return None
        return orders if len(orders) == len(keys) else None  # StopIteration of a key has ended it

    def orders(self, keys: list[Any], hashes: list[int]) -> list[Order]:
        """The order of each key, by its hash: keys with the same hash have one order."""
        orders, known = self._orders, self._known
        if not orders.keys() >= set(hashes):
            for number, key in zip(hashes, keys, strict=True):
                if number not in orders:
                    orders[number] = Order(number, key)
                    if len(known) < SPARE and _is_small(key):
                        known[key] = orders[number]
        return [orders[number] for number in hashes]

    def put(self, part: Slice[Any], orders: list[Order]) -> None:
        """Queue a slice by the orders of its messages' keys. The queue takes it over."""
        if not len(part):
            return
        self._undivided.append((part, orders))
        self.waiting += len(part)
        if len(self._orders) > SPARE + 2 * self.waiting:
            self._forget()

    def take(self, worker: int, count: int, whole: int = 0) -> Slice[Any] | None:
        """Up to `count` messages, or a slice as it came if it has at most `whole`."""
        while self._undivided and not (whole and self._ready):
            part = self._take_whole(worker, whole)
            if part is not None:
                return part
        taken: list[Message[Any]] = []
        held = self._held.setdefault(worker, [])
        ready = self._ready
        while ready and len(taken) < count:
            order = ready.popleft()
            order.listed = False
            order.taken = True
            held.append(order)
            if order.front is not None:
                taken.append(order.front)
                order.front = None
                continue
            some = order.waiting[: count - len(taken)]
            del order.waiting[: len(some)]
            taken += some
            self._load.count(order, len(some))
            if len(some) > 1:  # not for keys that no two messages share: that would cost
                order.sample = f"{some[0].stream}@{some[0].offset}"
        self.waiting -= len(taken)
        return Slice.of(taken) if taken else None

    def _take_whole(self, worker: int, most: int) -> Slice[Any] | None:
        """Take the first undivided slice if that is possible; otherwise divide it."""
        part, orders = self._undivided.popleft()
        if self._divide:
            self._divide -= 1
        elif len(part) <= most:
            counts = Counter(orders)
            if all(order.free for order in counts):
                return self._hand_over(worker, part, orders, counts)
            if any(order.taken for order in counts):
                self._divide = DIVIDED
        for message, order in zip(part.messages, orders, strict=True):
            message._order = order
            order.waiting.append(message)
            if not order.listed:
                self._list(order)
        return None

    def _hand_over(
        self, worker: int, part: Slice[Any], orders: list[Order], counts: Counter[Order]
    ) -> Slice[Any]:
        for order, several in counts.items():
            order.taken = True
            self._load.count(order, several)
        hottest = max(counts, key=counts.__getitem__)
        if counts[hottest] > 1:
            delivery, indexes = part.runs[0]
            at = orders.index(hottest)
            if at < len(indexes):
                hottest.sample = f"{delivery.partition.stream}@{delivery.offset(indexes[at])}"
        self._held.setdefault(worker, []).extend(counts)
        self._whole[worker] = part, orders
        self.waiting -= len(part)
        return part

    def assign(self, worker: int) -> None:
        part, orders = self._whole.pop(worker, (None, ()))
        if part is not None:
            # Not strict: a worker that crashed may have passed on some of them already.
            for message, order in zip(part.messages, orders, strict=False):
                message._order = order

    @property
    def hot_key(self) -> HotKey | None:
        """The key that most of what was taken lately has; None while too little was taken."""
        hottest = self._load.hottest
        return None if hottest is None else HotKey(hottest[1], hottest[0].sample)

    def release(self, worker: int) -> None:
        self._whole.pop(worker, None)
        for order in self._held.pop(worker, ()):
            order.taken = False
            self._list(order)

    def put_back(self, worker: int, messages: list[Message[Any]]) -> None:
        parts: dict[int, list[Message[Any]]] = {}
        for message in messages:
            parts.setdefault(message._order.number, []).append(message)
        for part in parts.values():
            order: Order = part[0]._order
            order.waiting[:0] = part
        self.waiting += len(messages)

    def retry(self, message: Message[Any]) -> None:
        order: Order = message._order
        if order.holder is not None:
            order.holder = message
        order.front = message
        self.waiting += 1
        self._list(order)

    def block(self, message: Message[Any]) -> None:
        order: Order = message._order
        self._blocked += order.holder is None
        order.holder = message

    def is_behind(self, message: Message[Any]) -> bool:
        holder = message._order.holder
        return holder is not None and holder is not message

    def is_holder(self, message: Message[Any]) -> bool:
        return message._order.holder is message

    def unblock(self, message: Message[Any]) -> bool:
        order: Order = message._order
        if not self.is_holder(message):
            return False
        order.holder = None
        self._blocked -= 1
        self._list(order)
        return True

    @property
    def blocked(self) -> bool:
        return self._blocked > 0

    @property
    def ready(self) -> int:
        return len(self._ready) + len(self._undivided)

    def _list(self, order: Order) -> None:
        if order.ready and not order.listed:
            order.listed = True
            self._ready.append(order)

    def _forget(self) -> None:
        """Drop the orders that have no messages."""
        needed = {order for _, orders in self._undivided for order in orders}
        self._orders = {
            key: order for key, order in self._orders.items() if order in needed or not order.free
        }
        self._known = {
            key: order for key, order in self._known.items() if order.number in self._orders
        }


def _is_small(key: Any) -> bool:
    """Whether a key may be kept, and compared without a call of a user's code."""
    kind = type(key)
    return kind is int or (kind in (str, bytes) and len(key) <= SMALL_KEY)


def stable_hash(key: Hashable) -> int:
    """A hash of a key that is the same in every process, as far as its type allows it.

    Keys that are equal have the same one, also if one of them is of a subclass, such as a StrEnum
    or a named tuple.
    """
    by = type(key).__hash__
    if by is str.__hash__:
        return zlib.crc32(str.encode(cast(str, key), "utf-8", "surrogatepass"))
    if by is int.__hash__:
        return hash(key)
    if by is bytes.__hash__:
        return zlib.crc32(cast(bytes, key))
    if by is tuple.__hash__:
        return hash(tuple(map(stable_hash, cast(tuple[Hashable, ...], key))))
    if by is frozenset.__hash__:
        return hash(frozenset(map(stable_hash, cast(frozenset[Hashable], key))))
    if by is Enum.__hash__:
        return stable_hash(cast(Enum, key).name)
    if by is date.__hash__:
        return cast(date, key).toordinal()
    return 0 if key is None else hash(key)
