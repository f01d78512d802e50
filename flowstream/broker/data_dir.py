"""The data directory: its lock, its store, and the address of the broker that uses it.

One broker at a time has the directory: it holds a lock on the file `lock`. It writes its address
to `address.json`, so that programs on the same machine can find it. The file of a broker that was
killed is ignored, because the kernel releases the lock when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowstream.broker.sqlite import SqliteStore
from flowstream.errors import ConfigurationError
from flowstream.protocol import Address

STORE_FILE = "flowstream.db"
LOCK_FILE = "lock"
ADDRESS_FILE = "address.json"
MAX_ADDRESS_BYTES = 1024
MAX_PORT = 65535
LOCK_TIMEOUT = 0.2
"""Seconds to wait for the lock: `find_local_broker` holds it for a moment to test it."""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """A broker that runs on a data directory of this machine."""

    process: int
    address: Address

    @property
    def url(self) -> str:
        """Where clients connect. Only brokers with the default user write down their address."""
        return f"rabbitmq-stream://guest:guest@{self.address}/%2f"


class DataDirStore(SqliteStore):
    """The store in a data directory, which is created if it does not exist. All methods block.

    Raises ConfigurationError if another process has the directory, or if it cannot be used.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock_file = _lock(data_dir)
        try:
            with _usable(data_dir):
                (data_dir / ADDRESS_FILE).unlink(missing_ok=True)
            super().__init__(data_dir / STORE_FILE)
        except BaseException:
            self._lock_file.close()
            raise

    def announce(self, address: Address) -> None:
        """Write down where this broker listens; `close` removes it again."""
        record = {"process": os.getpid(), "host": address.host, "port": address.port}
        new = self._data_dir / f"{ADDRESS_FILE}.new"
        with _usable(self._data_dir):
            new.write_text(json.dumps(record))
            new.replace(self._data_dir / ADDRESS_FILE)  # readers see the whole file or none

    def close(self) -> None:
        with contextlib.suppress(OSError):  # without the lock the file counts for nothing
            (self._data_dir / ADDRESS_FILE).unlink(missing_ok=True)
        super().close()
        self._lock_file.close()


def find_local_broker(data_dir: Path) -> LocalBroker | None:
    """The broker that runs on this data directory now; None if there is none or no address."""
    try:
        with (data_dir / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # the lock is free: no broker runs
    except BlockingIOError:
        return _read_address(data_dir / ADDRESS_FILE)
    except OSError:
        return None


def _read_address(file: Path) -> LocalBroker | None:
    """The file's content, if it names a port of this machine: anything may be in the file."""
    try:
        with file.open("rb") as opened:
            record = json.loads(opened.read(MAX_ADDRESS_BYTES))
        process, host, port = record["process"], record["host"], record["port"]
        local = host == "localhost" or ipaddress.ip_address(str(host)).is_loopback
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (local and type(process) is int and type(port) is int and 0 < port <= MAX_PORT):
        return None
    return LocalBroker(process, Address(str(host), port))


@contextlib.contextmanager
def _usable(data_dir: Path) -> Iterator[None]:
    """Inside, an OSError becomes a ConfigurationError that names the directory."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{data_dir} cannot hold a broker's data: {error}; choose another data directory"
        ) from error


def _lock(data_dir: Path) -> IO[str]:
    """The lock file, locked; the lock lasts until the file is closed."""
    with _usable(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / LOCK_FILE).open("a+")
    if not _acquire(file):
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise ConfigurationError(
            f"{data_dir} is in use by another broker (process {owner}); "
            "stop that broker, or choose another data directory"
        )
    try:
        with _usable(data_dir):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
    except BaseException:
        file.close()
        raise
    return file


def _acquire(file: IO[str]) -> bool:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOCK_TIMEOUT / 10)
        else:
            return True
