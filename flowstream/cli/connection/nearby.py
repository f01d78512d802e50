"""The embedded broker of this folder: what commands connect to where no address was given.

A run with `--embedded`, or `flowstream broker`, says in `.flowstream/` where it listens.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flowstream.cli.output.console import note

if TYPE_CHECKING:
    from flowstream.broker import LocalBroker

DATA = Path(".flowstream")


@cache
def nearby() -> LocalBroker | None:
    """The broker that runs on this folder's data, looked for once."""
    if not DATA.is_dir():
        return None
    from flowstream.broker import find_local_broker

    return find_local_broker(DATA)


@cache
def mention(found: LocalBroker) -> None:
    """Say, once, that this broker is the one in use."""
    note(
        f"broker: embedded, at {found.address}, run in this folder by process {found.process} "
        "(--url names another)"
    )
