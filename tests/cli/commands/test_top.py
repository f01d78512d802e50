"""`flowstream top`: the figures of a run, also while it is away and after it came back."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flowstream.cli.commands.top import Watch
from flowstream.cli.readers.monitor_client import MonitorUnavailable, snapshot
from flowstream.client import Address
from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream
from tests.cli.modules import numbered, write_module
from tests.cli.rows import Bad, Row

ROWS = {
    ("top",): Row(
        "--http {monitor}", r"running[\s\S]+lag",
        Bad("--http localhost:9 --once", 4, "no run answers at http://localhost:9/"),
        drawn=r"in flight +[\d,]+ of 10,000", document='"settled":', endless="out",
    ),
}  # fmt: skip


pytestmark = pytest.mark.timeout(300)  # many processes

COUNT = 300


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Shop:
    """A pipeline of which three messages of 300 fail, and where its monitor is."""

    def __init__(self, broker: Broker, stream: str, folder: Path) -> None:
        self.url = broker.url
        self.stream = stream
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.target = write_module(folder, stream)
        line = ("publish", stream, "-", "--create")
        assert flowstream(*line, url=broker.url, stdin=numbered(COUNT)).code == 0

    def start(self) -> Started:
        line = ("run", self.target, "--http", self.address)
        run = Started(*line, url=self.url, cwd=self.folder)
        run.line("live page on")
        return run

    def once(self) -> dict[str, Any]:
        (found,) = flowstream("top", "--http", self.address, "--once", "--json").json
        return dict(found)

    def settled(self) -> dict[str, Any]:
        """The pipeline's figures once everything is settled."""
        while True:
            found = self.once()
            assert found["state"] == "running", found
            for pipeline in found["pipelines"]:
                if pipeline["settled"] == COUNT:
                    return dict(pipeline)


@pytest.fixture
def shop(broker: Broker, stream_name: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(broker, stream_name, tmp_path)
    yield shop
    names = (stream_name, f"{stream_name}.dead")
    flowstream("streams", "delete", *names, "--yes", "--if-exists", url=broker.url)


def test_a_run_is_shown_as_its_own_monitor_tells(shop: Shop) -> None:
    with shop.start() as run:
        pipeline = shop.settled()
        plain = flowstream("top", "--http", shop.address, "--once")
        run.signal(signal.SIGTERM)
        assert run.end().code == 0
    assert (pipeline["name"], pipeline["failed"]) == (shop.stream, 3)
    assert plain.code == 0
    (line,) = plain.out.splitlines()
    assert line.startswith(f"{shop.stream}: running, ")
    assert f"{COUNT} settled, lag 0, 0 in flight" in line
    assert "3 failed" in line
    gone = flowstream("top", "--http", shop.address, "--once", "--json")
    assert gone.code == 4
    assert gone.json[0]["state"] == "gone"


def test_on_a_terminal_a_run_leaves_and_comes_back(shop: Shop) -> None:
    line = ("top", "--http", shop.address, "--interval", "0.2")
    with Terminal(*line) as top:
        top.expect("no answer for")
        with shop.start() as run:
            top.expect(r"up for")
            top.expect(rf"{shop.stream}\s+running")
            top.expect("sevens are not wanted|process failed")
            run.signal(signal.SIGTERM)
            run.end()
        top.expect("below are its last figures")
        top.raw = b""
        with shop.start():
            top.expect("was restarted")
            top.type("\x03")
            assert top.end() == 0
    assert "Traceback" not in top.screen


def test_through_a_pipe_it_is_lines(shop: Shop) -> None:
    line = ("top", "--http", shop.address, "--interval", "0.1")
    with shop.start(), Started(*line) as top:
        top.line(shop.stream, out=True)
        top.signal(signal.SIGINT)
        assert top.end().code == 0
    with shop.start(), Started(*line, "--json") as top:
        document = json.loads(top.stdout.readline())
        assert document["monitor"] == f"http://{shop.address}/"
        top.signal(signal.SIGTERM)
        assert top.end().code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--http", "nowhere", "--once"), 2, "is not an address"),
        (("--http", "127.0.0.1:9", "--once"), 4, "no run answers at http://127.0.0.1:9/"),
        (("--interval", "0"), 2, "--interval"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = flowstream("top", *arguments)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err


# -- one run as it is seen from outside ----------------------------------------------


def board(started: float, now: float) -> dict[str, Any]:
    return {"now": now, "uptime": now - started, "pipelines": []}


def test_what_a_watch_tells() -> None:
    watch = Watch(Address("h", 1))
    assert watch.missed("refused", 5.0) == "no run answers at http://h:1/ (refused); waiting for it"
    assert watch.missed("timed out", 6.0) is None
    assert (watch.gone_since, watch.document()["state"]) == (5.0, "gone")
    assert watch.saw(board(100.0, 101.0)) == "the run at http://h:1/ answers again"
    assert watch.saw(board(100.0, 130.1)) is None
    assert watch.missed("refused", 9.0) == (
        "the run no longer answers at http://h:1/ (refused); waiting for it"
    )
    assert watch.document()["pipelines"] == []
    assert watch.saw(board(100.0, 140.0)) == "the run at http://h:1/ answers again"
    again = watch.saw(board(100.5, 151.0))
    assert again == "the run at http://h:1/ was restarted: its counts begin at 0"
    assert watch.document()["state"] == "running"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (200, b"{}", "not that of a run"),
        (200, b"<html>", "not that of a run"),
        (200, b"\xff", "not that of a run"),
        (404, b"", "answered 404"),
    ],
)
def test_something_else_answers(status: int, body: bytes, text: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing on standard error."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(MonitorUnavailable, match=text):
            snapshot(Address("127.0.0.1", server.server_port))
        thread.join()


def test_nothing_answers() -> None:
    with pytest.raises(MonitorUnavailable, match="refused"):
        snapshot(Address("127.0.0.1", free_port()))
