"""The data folder: one broker at a time has it, and its store is in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from flowstream.broker.sqlite import SqliteStore
from flowstream.errors import ConfigurationError

STORE_FILE = "flowstream.db"
LOCK_FILE = "lock"


class FolderStore(SqliteStore):
    """The store in a folder, made when it is missing. All of it blocks.

    Raises ConfigurationError when another process has the folder, or it cannot be used. The lock
    ends with the process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self._lock_file = _lock(folder)
        try:
            super().__init__(folder / STORE_FILE)
        except BaseException:
            self._lock_file.close()
            raise

    def close(self) -> None:
        super().close()
        self._lock_file.close()


def _lock(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot hold a broker's data: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise ConfigurationError(
            f"{folder} is in use by another broker (process {owner}); "
            "stop it, or give this one a folder of its own"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
