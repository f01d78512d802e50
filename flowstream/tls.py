"""Options of TLS, for brokers and for RabbitMQ's management API."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from flowstream.errors import ConfigurationError
from flowstream.schema import NAME, SECRET, a, check, listing
from flowstream.texts import shown

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
