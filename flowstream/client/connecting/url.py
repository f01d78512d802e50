"""Addresses of brokers: `rabbitmq-stream://user:password@host:port/vhost`, or with `+tls`.

    scheme://[user[:password]@]host[:port][,host[:port]...][/path]

User and password end at the last @, so that no part of a password is taken for a host or a port. An
error names the part that is wrong but quotes nothing of the URL, because any part of an invalid URL
may be the password. Neither `repr` nor `str` of a parsed URL shows the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import Annotated
from urllib.parse import quote, unquote, unquote_to_bytes

from flowstream.checks import MAX_NAME
from flowstream.errors import ConfigurationError
from flowstream.protocol import Address
from flowstream.schema import SECRET, a, check, listing, text, whole

DEFAULT_URL = "rabbitmq-stream://guest:guest@localhost:5552/%2f"
EXAMPLE = "rabbitmq-stream://user:password@host:5552/vhost"
PORTS = {"rabbitmq-stream": 5552, "rabbitmq-stream+tls": 5551}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_PORT = re.compile(r"[0-9]{1,5}")
_CODED = re.compile(r"%[0-9A-Fa-f]{2}")
_DELIMITERS = "/?#@[]"
_MOST_PORT = 65535


@dataclass(frozen=True, slots=True)
class UrlParts:
    """The parts of a URL. User and password are decoded, the path is not.

    `shown` is the URL as it was given, with `***` for the password.
    """

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    shown: str

    @classmethod
    def split(cls, url: object, *, schemes: Iterable[str], example: str) -> UrlParts:
        """Parses a URL; raises a ConfigurationError that quotes nothing of the URL."""
        such = f"such as {example}"
        if not isinstance(url, str):
            raise ConfigurationError(f"expected a string {such}, not {type(url).__name__}")
        if not url:
            raise ConfigurationError(f"it is empty; expected an address {such}")
        if url != url.strip():
            raise ConfigurationError("remove the white space at its start and end")
        match = _SCHEME.match(url)
        if match is None or (scheme := match[1].lower()) not in schemes:
            named = " or ".join(f"{each}://" for each in schemes)
            raise ConfigurationError(f"the scheme must be {named} ({such})")
        userinfo, at, rest = url[match.end() :].rpartition("@")
        hosts, slash, path = rest.partition("/")
        if re.search("[?#]", rest):
            raise ConfigurationError("options after ? or # are not supported; remove them")
        _decode("path", path)
        user, colon, password = userinfo.partition(":")
        return cls(
            scheme,
            _decode("user name", user, _DELIMITERS) if at else None,
            _decode("password", password, _DELIMITERS) if colon else None,
            tuple(_host(host) for host in hosts.split(",")),
            slash + path,
            f"{match[0]}{user}{colon and ':***'}{at}{rest}",
        )


def _decode(part: str, text: str, delimiters: str = "") -> str:
    """The text without percent-encoding.

    Raises a ConfigurationError, without quoting the text, if a character should have been encoded.
    """
    if wrong := _not_encoded(text, delimiters):
        raise ConfigurationError(f"percent-encode {' and '.join(wrong)} in the {part}")
    raw = unquote_to_bytes(text)
    decoded = raw.decode(errors="replace")  # Python's own error would quote the text
    if decoded.encode() != raw:
        raise ConfigurationError(f"the {part} is percent-encoded, but its bytes are not UTF-8")
    if "\0" in decoded:
        raise ConfigurationError(
            f"the {part} has a NUL character (%00), which brokers do not accept"
        )
    return decoded


def _not_encoded(text: str, delimiters: str) -> list[str]:
    """The characters that must be encoded, in an order that reveals nothing about the text."""
    found = [f'"{sign}" (%{ord(sign):02X})' for sign in delimiters if sign in text]
    if "%" in _CODED.sub("", text):
        found.append('"%" (%25)')
    if " " in text:
        found.append("spaces (%20)")
    if any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in text):
        found.append("control characters such as line breaks (%0A)")
    if not text.isascii():
        found.append("the characters outside ASCII (the %XX of their UTF-8 bytes)")
    return found


def _host(text: str) -> tuple[str, int | None]:
    """A host and its port, or None for the port."""
    host, colon, port = text.rpartition(":") if _has_port(text) else (text, "", "")
    if not host:
        raise ConfigurationError(
            "the host is missing: write it after ://, or after the @ that ends user and password"
        )
    if host.startswith("["):
        host = _ipv6(host)
    elif ":" in host:
        raise ConfigurationError(
            "the host has more than one colon; write an IPv6 address as [::1]:5552, and end user "
            "and password with an @"
        )
    elif not _HOST.fullmatch(host):
        raise ConfigurationError(
            "the host may have only letters, digits, dots and hyphens (write other alphabets in "
            "their xn-- form)"
        )
    if colon and not (_PORT.fullmatch(port) and 0 < int(port) <= _MOST_PORT):
        raise ConfigurationError(
            f"the port after the host must be a number from 1 to {_MOST_PORT} (user and password "
            "end with an @)"
        )
    return host if ":" in host else host.lower(), int(port) if colon else None


def _has_port(text: str) -> bool:
    return ":" in text.rpartition("]")[2]


def _ipv6(text: str) -> str:
    host = text[1:-1].replace("%25", "%")
    if not (text.startswith("[") and text.endswith("]") and _is_ipv6(host)):
        raise ConfigurationError("the part in brackets must be an IPv6 address, such as [::1]")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except AddressValueError:
        return False
    return True


@listing
@dataclass(frozen=True, slots=True)
class StreamUrl:
    """The addresses of a broker or cluster, with the user, password and virtual host.

    `host` and `port` are the first address; `others` are tried after it.
    """

    host: Annotated[str, text(1, MAX_NAME), "a host name, or an IP address"]
    port: Annotated[int, whole(1, _MOST_PORT), "the port of the stream protocol"]
    tls: Annotated[bool, "whether the connection is encrypted"] = False
    user: Annotated[str, SECRET, "the user's name"] = "guest"
    password: Annotated[str, SECRET, "the user's password"] = field(default="guest", repr=False)
    virtual_host: Annotated[str, text(1, MAX_NAME), "the virtual host of the streams"] = "/"
    others: Annotated[
        tuple[Address, ...], a(tuple, "a tuple of addresses"), "other nodes of the cluster"
    ] = ()

    def __post_init__(self) -> None:
        check(self, "StreamUrl")

    @property
    def address(self) -> Address:
        return Address(self.host, self.port)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses, in the order in which they are tried."""
        return (self.address, *self.others)

    @classmethod
    def parse(cls, url: str, option: str = "url") -> StreamUrl:
        """Parses a URL; raises a ConfigurationError that names `option` and the wrong part of the
        URL, but quotes nothing of it."""
        try:
            parts = UrlParts.split(url, schemes=PORTS, example=EXAMPLE)
            if "/" in parts.path[1:]:
                raise ConfigurationError("write a / in the virtual host as %2f")
        except ConfigurationError as error:
            reason = str(error)
        else:
            port = PORTS[parts.scheme]
            first, *others = [Address(host, given or port) for host, given in parts.hosts]
            return cls(
                host=first.host,
                port=first.port,
                tls=parts.scheme.endswith("+tls"),
                user="guest" if parts.user is None else parts.user,
                password="guest" if parts.password is None else parts.password,
                virtual_host=unquote(parts.path[1:]) or "/",
                others=tuple(others),
            )
        raise ConfigurationError(f"{option}: {reason}")

    def __str__(self) -> str:
        scheme = "rabbitmq-stream+tls" if self.tls else "rabbitmq-stream"
        hosts = ",".join(map(str, self.addresses))
        path = quote(self.virtual_host, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:***@{hosts}/{path}"
