"""`flowstream run --http`: what an orchestrator and the live page's controls get."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flowstream.testing import broker_in_thread
from tests.cli.command import TIMEOUT, Started
from tests.cli.modules import SLOW, write_module

READY = """\
[+] orders/phase: the run is running
[+] orders/broker: connected
[+] orders/handlers: no handler is stuck
[+] orders/progress: 0 messages in flight
[+] orders/commits: no settled messages wait for a commit
[+] orders/offset: no stored offset is beyond its stream
[+] orders/retention: no messages were lost
ready
"""


def get(address: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    request = urllib.request.Request(address + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until(address: str, path: str, text: str) -> None:
    """Wait for a good answer with the text in it."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        status, seen = get(address, path)
        if status == 200 and text in seen:
            return
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


@pytest.mark.parametrize("more", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_the_address_of_the_page_can_be_opened(tmp_path: Path, more: list[str]) -> None:
    """Also one of IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    target = write_module(tmp_path, "orders", handler=SLOW)
    options = ["--create", "--http", "[::1]:0", *more]
    with (
        broker_in_thread() as broker,
        Started("run", target, *options, url=broker.url, cwd=tmp_path) as run,
    ):
        page = re.search(r"http://[^/]+/", run.line("live page on"))
        assert page is not None
        assert get(page[0], "livez") == (200, "ok\n")


@pytest.mark.parametrize("control", [False, True], ids=["looking", "controlling"])
def test_health_and_controls(tmp_path: Path, control: bool) -> None:
    target = write_module(tmp_path, "orders", handler=SLOW)
    options = ["--create", "--http", "127.0.0.1:0", *(["--http-control"] if control else [])]
    with (
        broker_in_thread() as broker,
        Started("run", target, *options, url=broker.url, cwd=tmp_path) as run,
    ):
        page = re.search(r"http://[^/]+/", run.line("live page on"))
        assert page is not None
        until(page[0], "startupz", "started")
        assert get(page[0], "readyz?verbose") == (200, READY)
        assert get(page[0], "livez") == (200, "ok\n")
        pause = {"pipeline": "orders", "action": "pause"}
        status, body = get(page[0], "api/control", pause)
        if control:
            assert (status, json.loads(body)) == (200, {"ok": True})
            until(page[0], "api/snapshot", '"phase": "paused"')
        else:
            assert status == 403
            assert "--http-control" in body
        run.signal(signal.SIGTERM)
        assert run.end().code == 0
