"""What one measurement works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """A stream of a broker, and how many messages to move."""

    url: str
    stream: str
    messages: int

    def address(self) -> dict[str, Any]:
        """The URL as rstream wants it."""
        parts = urlsplit(self.url)
        return {
            "host": parts.hostname or "localhost",
            "port": parts.port or 5552,
            "username": unquote(parts.username or "guest"),
            "password": unquote(parts.password or "guest"),
            "vhost": unquote(parts.path.removeprefix("/")) or "/",
        }
