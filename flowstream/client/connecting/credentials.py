"""Credentials of a connection: a password, a TLS certificate, or an OAuth 2.0 token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

import anyio

from flowstream.checks import is_number
from flowstream.errors import TokenUnavailable
from flowstream.schema import SECONDS, SECRET, Rule, answer_of, check, listing, make, takes
from flowstream.texts import describe, type_name


class Credentials(ABC):
    """What a connection authenticates with. Subclasses keep secrets out of their `repr`."""

    mechanism = "PLAIN"
    expires = False
    """Whether open connections must authenticate again from time to time (see `renew_after`)."""

    @abstractmethod
    async def response(self) -> bytes:
        """The initial response of the mechanism; called for every authentication."""

    def refused(self, response: bytes) -> None:  # noqa: B027  # most have nothing else to offer
        """The server refused this response; if possible the next `response` should differ."""

    async def renew_after(self) -> float | None:
        """Seconds until open connections must authenticate again; None: never."""
        return None

    def __str__(self) -> str:
        """The class, for error messages: the `repr` of a user's subclass may contain its secret."""
        return type(self).__name__


def _plain(user: str, password: str) -> bytes:
    return b"\0" + user.encode() + b"\0" + password.encode()


SHARE = Rule(
    "a number between 0 and 1, both excluded",
    lambda value: is_number(value, 0, 1) and value not in (0, 1),
)


@listing
@dataclass(frozen=True, slots=True)
class PlainCredentials(Credentials):
    """A user name and a password."""

    user: Annotated[str, SECRET, "the user's name"]
    password: Annotated[str, SECRET, "the user's password"] = field(repr=False)

    def __post_init__(self) -> None:
        check(self, "PlainCredentials")

    def __str__(self) -> str:
        return f"PlainCredentials(user={self.user!r})"

    async def response(self) -> bytes:
        return _plain(self.user, self.password)


@dataclass(frozen=True, slots=True)
class ExternalCredentials(Credentials):
    """Authenticates by the client certificate of the TLS connection (EXTERNAL)."""

    mechanism = "EXTERNAL"

    async def response(self) -> bytes:
        return b""


@listing
@dataclass(frozen=True, slots=True)
class Token:
    """An OAuth 2.0 access token, which is valid for `expires_in` seconds."""

    value: Annotated[str, SECRET, "the token itself"] = field(repr=False)
    expires_in: Annotated[float, SECONDS, "seconds until it expires"]

    def __post_init__(self) -> None:
        check(self, "Token")


@dataclass(frozen=True)
class TokenCredentialsArguments:
    """What `TokenCredentials(...)` takes."""

    fetch: Annotated[Callable[[], Awaitable[Token]], "an async function that returns a new token"]
    _: KW_ONLY
    user: Annotated[str, SECRET, "the user's name, which most servers ignore"] = field(
        default="", repr=False
    )
    renew_at: Annotated[float, SHARE, "the part of its lifetime after which a token is renewed"] = (
        0.8
    )


class TokenCredentials(Credentials):
    """OAuth 2.0: `fetch` returns a new token, and is called before the last one expires.

    `renew_at` is the fraction of a token's lifetime after which it is renewed. All connections of
    an environment share one token, and each open connection authenticates again with the new one.
    Servers below 3.13 do not support that: they close the connection when the token expires, or
    ignore the expiry; the connection then recovers with a new token. If the server refuses a token
    early, because it was revoked or clocks differ, a new one is fetched for the next attempt.
    """

    expires = True

    @takes(TokenCredentialsArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(TokenCredentialsArguments, arguments, values, "TokenCredentials")
        self._fetch = options.fetch
        self._user = options.user
        self._renew_at = options.renew_at
        self._token: Token | None = None
        self._renew_time = 0.0
        self._lock = anyio.Lock()

    def __repr__(self) -> str:
        return f"TokenCredentials(user={self._user!r})"

    __str__ = __repr__

    async def _current(self) -> Token:
        async with self._lock:
            if self._token is None or anyio.current_time() >= self._renew_time:
                try:
                    token = await answer_of("fetch", self._fetch)
                except Exception as error:
                    raise TokenUnavailable(f"fetching a token failed: {describe(error)}") from error
                if not isinstance(token, Token):
                    raise TokenUnavailable(
                        "fetching a token failed: TokenCredentials(fetch=...) must return a "
                        f"Token(...), not an object of type {type_name(token)}"
                    )
                self._token = token
                self._renew_time = anyio.current_time() + self._token.expires_in * self._renew_at
            return self._token

    async def response(self) -> bytes:
        return _plain(self._user, (await self._current()).value)

    def refused(self, response: bytes) -> None:
        if self._token is not None and response == _plain(self._user, self._token.value):
            self._token = None

    async def renew_after(self) -> float | None:
        await self._current()
        return max(0.0, self._renew_time - anyio.current_time())
