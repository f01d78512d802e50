"""A real PostgreSQL, started from the machine's binaries (Debian: `apt-get install postgresql`).

A server refuses to run as root, so root starts it as `nobody`. Its data is in a temporary folder,
and never synced.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REASON = "no PostgreSQL: apt-get install postgresql, and psycopg (the extra `postgres`)"


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where the machine has none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: float(it.parts[-2]))
    on_path = shutil.which("initdb")
    folders = [*found, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((it for it in reversed(folders) if (it / "initdb").exists()), None)


class Postgres:
    """A server of its own, with `databases` by number. `durable`: it syncs what it commits."""

    def __init__(self, folder: Path, programs: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.databases = 0
        self._programs = programs
        self._user = "nobody" if os.geteuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"postgresql://postgres:secret@127.0.0.1:{self.port}/"

    def create(self) -> None:
        if self._user is not None:
            nobody = pwd.getpwnam(self._user)
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._call("initdb", "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")

    def start(self) -> None:
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 "
            f"-c fsync={'on' if self.durable else 'off'} "
            "-c max_connections=50 -c shared_buffers=16MB -c deadlock_timeout=100ms"
        )
        self._call("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self, how: str = "immediate") -> None:
        """`immediate` is as a crash: everybody is cut off, and the start recovers."""
        self._call("pg_ctl", "-w", "-m", how, "stop")

    def database(self) -> str:
        """The URL of a new, empty database."""
        self.databases += 1
        name = f"test{self.databases}"
        self.ask(self.url, f"CREATE DATABASE {name}")
        return self.url + name

    def ask(self, url: str, statement: str, *values: Any) -> list[Any]:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return [] if cursor.description is None else cursor.fetchall()

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-D", str(self.folder / "data"), *arguments],
            user=self._user, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@contextmanager
def served_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server that is running; skips where it cannot be had."""
    programs = binaries()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(REASON)
    folder = Path(tempfile.mkdtemp(prefix="flowstream-postgres-"))
    server = Postgres(folder, programs, durable=durable)
    try:
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the tests of a process; a test has a database of its own in it."""
    with served_postgres() as server:
        yield server
