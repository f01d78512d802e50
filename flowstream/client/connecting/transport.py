"""Byte streams to brokers over TCP and TLS. Errors of the network become ConnectionFailed here."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute

from flowstream.errors import ConnectionFailed
from flowstream.protocol import Address

from . import sockets

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
    where = str(address)
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
            "tls=Tls(ca=...), on the command line as --tls-ca FILE, or connect to a name that its "
            "certificate has"
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
