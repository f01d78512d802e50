"""What a connection expects of its publishers and subscriptions, and the ids they have there."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from flowstream.errors import ConnectionClosed
from flowstream.protocol import Deliver

User = TypeVar("User")


class StreamUser(Protocol):
    """What a connection calls on its publishers and subscriptions. All calls are synchronous."""

    stream: str

    def metadata_changed(self, code: int) -> None:
        """The broker has removed this user, because its stream moved or was deleted."""

    def connection_lost(self, error: ConnectionClosed) -> None: ...


class PublisherUser(StreamUser, Protocol):
    def confirmed(self, publishing_ids: tuple[int, ...]) -> None: ...

    def refused(self, errors: tuple[tuple[int, int], ...]) -> None: ...

    def fill(self, buffers: list[bytes], limit: int) -> bool:
        """Appends encoded frames of about `limit` bytes; returns whether there are more."""
        ...


class SubscriptionUser(StreamUser, Protocol):
    def delivered(self, deliver: Deliver) -> None: ...

    def credit_refused(self, code: int) -> None: ...

    def update(self, correlation_id: int, active: bool) -> None:
        """A single active consumer is promoted or demoted; answer with `answer_update`."""


class IdAllocator(Generic[User]):
    """Assigns ids from 0 to 255 to at most `limit` users.

    Ids rotate: a free id is assigned again as late as possible. Otherwise a frame that is still in
    transit for its last user could reach the next one.
    """

    __slots__ = ("_limit", "_next", "_users")

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._next = 0
        self._users: dict[int, User] = {}

    def __len__(self) -> int:
        return len(self._users)

    @property
    def full(self) -> bool:
        return len(self._users) >= self._limit

    def add(self, user: User) -> int:
        """Assigns an id to a new user; raises IndexError when all are in use."""
        if self.full:
            raise IndexError(f"all {self._limit} ids of the connection are in use")
        while self._next in self._users:
            self._next = (self._next + 1) % 256
        number, self._next = self._next, (self._next + 1) % 256
        self._users[number] = user
        return number

    def get(self, number: int) -> User | None:
        return self._users.get(number)

    def users(self) -> list[User]:
        return list(self._users.values())

    def remove(self, number: int) -> None:
        self._users.pop(number, None)
