"""The data folder: one broker at a time has it, and its store is in it.

A broker says in the folder where it listens, for programs that are in the same place. What a broker
that was killed has left there is ignored: the lock ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowstream.broker.sqlite import SqliteStore
from flowstream.errors import ConfigurationError
from flowstream.protocol import Address

STORE_FILE = "flowstream.db"
LOCK_FILE = "lock"
ADDRESS_FILE = "address.json"
MOST_BYTES = 1024
MOST_PORT = 65535
PATIENCE = 0.2
"""Seconds to wait for a lock that may be that of somebody who only looks."""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """The broker that has a data folder: its process, and where it listens."""

    process: int
    address: Address

    @property
    def url(self) -> str:
        """Where clients connect: a broker with users of its own does not say where it is."""
        return f"rabbitmq-stream://guest:guest@{self.address}/%2f"


class DataDirStore(SqliteStore):
    """The store in a folder, made when it is missing. All of it blocks.

    Raises ConfigurationError when another process has the folder, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock_file = _lock(folder)
        try:
            (folder / ADDRESS_FILE).unlink(missing_ok=True)
            super().__init__(folder / STORE_FILE)
        except BaseException:
            self._lock_file.close()
            raise

    def announce(self, address: Address) -> None:
        """Say where the broker of this folder listens, until it is closed."""
        told = {"process": os.getpid(), "host": address.host, "port": address.port}
        new = self._folder / f"{ADDRESS_FILE}.new"
        new.write_text(json.dumps(told))
        new.replace(self._folder / ADDRESS_FILE)

    def close(self) -> None:
        (self._folder / ADDRESS_FILE).unlink(missing_ok=True)
        super().close()
        self._lock_file.close()


def find_local_broker(folder: Path) -> LocalBroker | None:
    """The broker that runs on a data folder now, if there is one and it says where."""
    try:
        with (folder / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody has it
    except BlockingIOError:
        return _announced(folder / ADDRESS_FILE)
    except OSError:
        return None


def _announced(file: Path) -> LocalBroker | None:
    try:
        with file.open("rb") as opened:
            told = json.loads(opened.read(MOST_BYTES))
        process, host, port = told["process"], told["host"], told["port"]
        here = host == "localhost" or ipaddress.ip_address(str(host)).is_loopback
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (here and type(process) is int and type(port) is int and 0 < port <= MOST_PORT):
        return None
    return LocalBroker(process, Address(str(host), port))


def _lock(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot hold a broker's data: {error}") from error
    if not _locked(file):
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise ConfigurationError(
            f"{folder} is in use by another broker (process {owner}); "
            "stop it, or give this one a folder of its own"
        )
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _locked(file: IO[str]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(PATIENCE / 10)
        else:
            return True
