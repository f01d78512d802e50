"""The monitor of a run, asked from outside: the snapshot behind its live page."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from flowstream.cli.output.console import why

Address = tuple[str, int]

DEFAULT = ("127.0.0.1", 9464)
TIMEOUT = 5.0
MOST = 16 * 1024 * 1024
"""Bytes of a snapshot that are read."""


class NoMonitor(Exception):
    """Nothing at an address answers as a monitor; the text says what it did instead."""


def shown(address: Address) -> str:
    """HOST:PORT."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def snapshot(address: Address, timeout: float = TIMEOUT) -> dict[str, Any]:
    """The board of the run whose monitor listens there. Blocks: call it in a thread.

    Raises NoMonitor.
    """
    connection = HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", "/api/snapshot", headers={"accept": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise NoMonitor(f"answered {answer.status} {answer.reason}")
        board = json.loads(answer.read(MOST))
    except (OSError, HTTPException) as error:
        raise NoMonitor(why(error) or "no answer") from error
    except ValueError as error:
        raise NoMonitor("what answers is not the monitor of a run") from error
    finally:
        connection.close()
    if not isinstance(board, dict) or not isinstance(board.get("pipelines"), list):
        raise NoMonitor("what answers is not the monitor of a run")
    return board
