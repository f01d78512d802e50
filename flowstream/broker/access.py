"""Who may connect: SASL PLAIN (RFC 4616) against a table of users."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from flowstream.protocol import OK, Code

MECHANISMS = ("PLAIN",)
LOOPBACK_ONLY = "guest"


def is_loopback(host: str | None) -> bool:
    return host is None or host == "::1" or host.startswith(("127.", "::ffff:127."))


def check_plain(
    data: bytes | None, users: Mapping[str, str], peer_host: str | None
) -> tuple[Code, str]:
    """The response code and the user name ("" unless it is OK) for a PLAIN response.

    As in RabbitMQ an authorization identity is an error, and the user "guest" may connect over
    loopback only.
    """
    parts = (data or b"").split(b"\0")
    if len(parts) != 3 or parts[0]:
        return Code.SASL_ERROR, ""
    name, password = (part.decode("utf-8", "surrogateescape") for part in parts[1:])
    expected = users.get(name)
    given = password.encode("utf-8", "surrogateescape")
    if expected is None or not hmac.compare_digest(expected.encode(), given):
        return Code.AUTHENTICATION_FAILURE, ""
    if name == LOOPBACK_ONLY and not is_loopback(peer_host):
        return Code.SASL_AUTHENTICATION_FAILURE_LOOPBACK, ""
    return OK, name
