"""The 8-bit ids of publishers or subscriptions on one connection. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

User = TypeVar("User")


class Ids(Generic[User]):
    """At most `limit` users, each under an id from 0 to 255.

    Ids rotate: a freed one is given out again as late as possible, so that what is still under way
    for its last user does not reach the next one.
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
        """The id for a new user; raises IndexError when all are taken."""
        if self.full:
            raise IndexError(f"all {self._limit} ids of the connection are taken")
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
