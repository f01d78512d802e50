"""The client of a run's monitor: the snapshot that its live page shows."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from flowstream.cli.output.console import why
from flowstream.client import Address

DEFAULT_ADDRESS = Address("127.0.0.1", 9464)
TIMEOUT = 5.0
MOST = 16 * 1024 * 1024
"""The size up to which a snapshot is read, in bytes."""


class MonitorUnavailable(Exception):
    """No monitor answers at an address, for the reason in the text."""


def snapshot(address: Address, timeout: float = TIMEOUT) -> dict[str, Any]:
    """The snapshot of the run whose monitor listens there. Blocks: call it in a thread.

    Raises MonitorUnavailable.
    """
    connection = HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", "/api/snapshot", headers={"accept": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise MonitorUnavailable(f"answered {answer.status} {answer.reason}")
        board = json.loads(answer.read(MOST))
    except (OSError, HTTPException) as error:
        raise MonitorUnavailable(why(error) or "no answer") from error
    except ValueError as error:
        raise MonitorUnavailable("the answer is not that of a run") from error
    finally:
        connection.close()
    if not isinstance(board, dict) or not isinstance(board.get("pipelines"), list):
        raise MonitorUnavailable("the answer is not that of a run")
    return board
