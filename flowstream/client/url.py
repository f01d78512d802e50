"""Addresses of brokers: `rabbitmq-stream://user:pass@host:port/vhost` and `rabbitmq-stream+tls://`.

A parsed URL never shows its password: not in `repr`, not in `str`, not in an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from flowstream.errors import ConfigurationError
from flowstream.protocol import Address

DEFAULT_URL = "rabbitmq-stream://guest:guest@localhost:5552/%2f"
PORTS = {"rabbitmq-stream": 5552, "rabbitmq-stream+tls": 5551}


@dataclass(frozen=True, slots=True)
class StreamUrl:
    """One broker's address with what a connection to it needs."""

    host: str
    port: int
    tls: bool = False
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    virtual_host: str = "/"

    @property
    def address(self) -> Address:
        return Address(self.host, self.port)

    @classmethod
    def parse(cls, url: str) -> StreamUrl:
        """Reads a URL; raises ConfigurationError naming the part that is wrong."""
        if not isinstance(url, str):
            raise ConfigurationError(f"url={url!r}: give a text such as {mask(DEFAULT_URL)}")
        shown = mask(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{shown}: not a URL ({error})") from None
        if parts.scheme not in PORTS:
            raise ConfigurationError(
                f"{shown}: the scheme must be rabbitmq-stream:// or rabbitmq-stream+tls:// "
                f"(such as {mask(DEFAULT_URL)})"
            )
        if not parts.hostname:
            raise ConfigurationError(f"{shown}: a host is missing after ://")
        if parts.query or parts.fragment:
            raise ConfigurationError(
                f"{shown}: options after ? or # are not understood; remove them"
            )
        path = parts.path.removeprefix("/")
        if "/" in path:
            raise ConfigurationError(f"{shown}: write a virtual host's / as %2f")
        return cls(
            host=parts.hostname,
            port=port or PORTS[parts.scheme],
            tls=parts.scheme.endswith("+tls"),
            user=unquote(parts.username) if parts.username is not None else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            virtual_host=unquote(path) or "/",
        )

    def __str__(self) -> str:
        scheme = "rabbitmq-stream+tls" if self.tls else "rabbitmq-stream"
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = quote(self.virtual_host, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:***@{host}:{self.port}/{path}"


def mask(url: str) -> str:
    """The URL with its password as `***`, whatever shape it has."""
    return re.sub(r"(//[^:/@]*:).*@", r"\1***@", url)
