"""What `flowstream doctor` checks on this machine: Python, extras and limits."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from flowstream.cli.diagnosis.findings import Finding, ok, warn
from flowstream.version import __version__

EXTRAS = {
    "uvloop": ("uvloop", "a faster event loop"),
    "cramjam": ("compression", "snappy, lz4 and zstd"),
    "msgspec": ("msgspec", "msgspec structs as payloads"),
    "watchfiles": ("reload", "run --reload"),
    "opentelemetry-api": ("otel", "tracing"),
    "pyarrow": ("parquet", "Parquet files and Arrow tables"),
    "fsspec": ("files", "files on object stores"),
}
"""Distribution -> (extra that installs it, its purpose)."""

FILES = 1024
"""The recommended limit of open files: for connections, and for the files of handlers."""

MACHINE = "machine"


def local() -> Iterator[Finding]:
    """Findings on Python, flowstream, extras and open files."""
    yield ok(MACHINE, "flowstream", __version__)
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    yield ok(MACHINE, "python", found)
    for distribution, (extra, purpose) in EXTRAS.items():
        yield _extra(distribution, extra, purpose)
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _extra(distribution: str, extra: str, purpose: str) -> Finding:
    try:
        return ok(MACHINE, f"extra {extra}", f"{distribution} {version(distribution)}: {purpose}")
    except PackageNotFoundError:
        text = f"{distribution} is not installed ({purpose})"
        if distribution == "uvloop":
            return warn(MACHINE, f"extra {extra}", text, "pip install uvloop")
        return ok(MACHINE, f"extra {extra}", text)


def open_files(limit: int) -> Finding:
    """The finding on the soft limit of open files."""
    if limit == resource.RLIM_INFINITY:
        return ok(MACHINE, "open files", "no limit")
    if limit < FILES:
        remedy = f"ulimit -n {FILES} or more, or LimitNOFILE= of the service"
        return warn(MACHINE, "open files", f"at most {limit:,}", remedy)
    return ok(MACHINE, "open files", f"at most {limit:,}")
