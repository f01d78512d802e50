"""OAuth 2.0 access tokens as the brokers of the tests take them: JSON Web Tokens (RFC 7519)."""

from __future__ import annotations

import base64
import json
import time

import anyio

from tests.brokers.rabbitmq import TOKEN_AUDIENCE
from tests.brokers.running import Certificates

EVERYTHING = ("configure:*/*", "write:*/*", "read:*/*")


async def make_token(certificates: Certificates, seconds: int) -> str:
    """A token that may do everything for so long, signed (RS256) with the brokers' key."""
    header = {"alg": "RS256", "typ": "JWT", "kid": "tests"}
    claims = {
        "sub": "holder of a token",
        "aud": [TOKEN_AUDIENCE],
        "scope": " ".join(f"{TOKEN_AUDIENCE}.{scope}" for scope in EVERYTHING),
        "exp": int(time.time()) + seconds,
    }
    signed = ".".join(_segment(json.dumps(part).encode()) for part in (header, claims))
    command = ["openssl", "dgst", "-sha256", "-sign", certificates.server_key]
    signature = await anyio.run_process(command, input=signed.encode())
    return f"{signed}.{_segment(signature.stdout)}"


def _segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
