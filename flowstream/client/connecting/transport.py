"""Byte streams to brokers over TCP and TLS. Errors of the network become ConnectionFailed here."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute

from flowstream.errors import ConfigurationError, ConnectionFailed
from flowstream.protocol import Address
from flowstream.schema import NAME, a, check, listing
from flowstream.texts import shown

from . import sockets
from .credentials import SECRET

Dial: TypeAlias = Callable[[Address], Awaitable[ByteStream]]
"""Opens a byte stream to an address; raises ConnectionFailed."""

STREAM_ERRORS = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
    ssl.SSLError,
)
"""What a byte stream raises when the peer or the network has closed it."""


FILE = a((str, Path), "the path of a file")


@listing
@dataclass(frozen=True, slots=True)
class Tls:
    """Options of TLS connections. By default the system's authorities are trusted, and verified.

    `ca` replaces the system's authorities. `certificate` and `key` (PEM files) are the
    client's own, for mutual TLS. `verify=False` accepts any certificate: use it for experiments
    only.
    """

    ca: Annotated[
        str | Path | None, FILE, "certificate authorities to trust instead of the system's (PEM)"
    ] = None
    certificate: Annotated[
        str | Path | None, FILE, "the client's certificate, for mutual TLS (PEM)"
    ] = None
    key: Annotated[str | Path | None, FILE, "the key of the client's certificate (PEM)"] = None
    key_password: Annotated[str | None, SECRET, "the password of the key"] = field(
        default=None, repr=False
    )
    server_name: Annotated[
        str | None, NAME, "the name expected in the broker's certificate, instead of its host name"
    ] = None
    verify: Annotated[bool, "false accepts any certificate; for experiments only"] = True

    def __post_init__(self) -> None:
        check(self, "Tls")

    def context(self) -> ssl.SSLContext:
        """The SSL context; raises a ConfigurationError that names the wrong option."""
        if self.key is not None and self.certificate is None:
            raise ConfigurationError(
                f"Tls > key={shown(self.key)}: it needs certificate=, to which it belongs"
            )
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"Tls > ca={str(self.ca)!r}: {error}") from error
        if self.certificate is not None:
            try:
                # Without a password OpenSSL would ask for one on the terminal, and block.
                password = self.key_password or ""
                context.load_cert_chain(self.certificate, self.key, password)
            except (OSError, ValueError) as error:
                name = str(self.certificate)
                raise ConfigurationError(
                    f"Tls > certificate={name!r}: {error}; check that both are PEM files, "
                    "that the key belongs to the certificate, and that key_password is right"
                ) from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def tcp(timeout: float) -> Dial:
    """Connects over plain TCP."""

    async def dial(address: Address) -> ByteStream:
        return await _connect(address, timeout, None, None)

    return dial


def tls_dial(timeout: float, context: ssl.SSLContext, server_name: str | None = None) -> Dial:
    """Connects over TLS. The certificate must be for `server_name`, or else for the host."""

    async def dial(address: Address) -> ByteStream:
        return await _connect(address, timeout, context, server_name)

    return dial


async def _connect(
    address: Address, timeout: float, context: ssl.SSLContext | None, server_name: str | None
) -> ByteStream:
    where = f"{address.host}:{address.port}"
    try:
        with anyio.fail_after(timeout):
            stream: ByteStream
            if context is None and sockets.on_asyncio():
                return await sockets.connect(address.host, address.port)
            if context is None:
                stream = await anyio.connect_tcp(address.host, address.port)
            else:
                stream = await anyio.connect_tcp(
                    address.host,
                    address.port,
                    ssl_context=context,
                    tls_hostname=server_name or address.host,
                    tls_standard_compatible=False,
                )
    except TimeoutError:
        raise ConnectionFailed(
            f"no broker at {where}: no answer within {timeout:g} s; check the address and firewalls"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise ConnectionFailed(
            f"{where} is not trusted: {error.verify_message}; pass its authority as "
            "tls=Tls(ca=...), or connect to a name that its certificate has"
        ) from error
    except (ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise ConnectionFailed(
            f"{where} did not complete the TLS handshake ({_reason(error)}); the TLS port of "
            "streams is usually 5551"
        ) from error
    except OSError as error:
        raise ConnectionFailed(
            f"no broker at {where}: {_reason(error)}; start one (`flowstream broker` "
            "is one for development) or correct the URL"
        ) from error
    raw = stream.extra_attributes[SocketAttribute.raw_socket]()
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def _reason(error: BaseException) -> str:
    """The innermost cause: anyio wraps the errors of a host's addresses into groups."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or "it closed the connection"
