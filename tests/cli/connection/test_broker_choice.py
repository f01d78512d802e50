"""Which broker a run uses, and what is said where what was found is none."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from flowstream.cli.configuration.settings import Origin, load, settings
from flowstream.cli.connection import broker_choice
from flowstream.cli.connection.broker_choice import (
    BrokerChoice,
    RunBroker,
    Source,
    broker_at,
    broker_for_run,
    decide,
)
from flowstream.cli.connection.connect import Connection
from flowstream.cli.connection.listener import what_listens
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.client import DEFAULT_URL, StreamUrl
from tests.brokers.running import Broker
from tests.cli.command import Started, flowstream
from tests.cli.modules import write_module

FLAGS = Origin("flag", "--url"), Origin("flag", "--embedded")


VARIABLES = Origin("environment", "FLOWSTREAM_URL"), Origin("environment", "FLOWSTREAM_EMBEDDED")


HURRY = {"FLOWSTREAM_REQUEST_TIMEOUT": "0.3"}


FILES = Origin("pyproject.toml", "url"), Origin("pyproject.toml", "embedded")


@pytest.mark.parametrize(
    ("url", "embedded", "source"),
    [
        (None, None, Source.ANY),
        (FLAGS[0], None, Source.NAMED),
        (None, FILES[1], Source.EMBEDDED),
        (VARIABLES[0], FLAGS[1], Source.EMBEDDED),
        (FLAGS[0], VARIABLES[1], Source.NAMED),
        (FILES[0], VARIABLES[1], Source.EMBEDDED),
    ],
)
def test_the_more_important_place_decides(
    url: Origin | None, embedded: Origin | None, source: Source
) -> None:
    assert decide(url, embedded) is source


@pytest.mark.parametrize("place", [FLAGS, VARIABLES, FILES])
def test_both_in_one_place_are_refused(place: tuple[Origin, Origin]) -> None:
    with pytest.raises(CommandError, match="exclude each other") as caught:
        decide(*place)
    assert caught.value.exit_code is ExitCode.USAGE
    assert all(str(origin) in str(caught.value) for origin in place)


@pytest.mark.parametrize(
    ("url", "by"),
    [
        ("rabbitmq-stream://flag:1", "--url"),
        ("rabbitmq-stream://file:1", "pyproject.toml: [tool.flowstream] url"),
        (DEFAULT_URL, "the default"),
    ],
)
def test_the_origin_of_a_commands_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, by: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.flowstream]\nurl = 'rabbitmq-stream://file:1'\n"
    )
    loaded = load(tmp_path)
    monkeypatch.setattr(broker_choice, "settings", lambda: loaded)
    monkeypatch.setattr(broker_choice, "broker_of_folder", lambda: None)
    assert broker_at(url).by.endswith(by)
    assert broker_at(url).source is Source.NAMED


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def http_server() -> Iterator[int]:
    with HTTPServer(("localhost", 0), Quiet) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server.server_port
        server.shutdown()
        serving.join()


@contextmanager
def silent() -> Iterator[tuple[socket.socket, int]]:
    """Connections are accepted by the kernel, and nobody reads them."""
    with closing(socket.create_server(("localhost", 0))) as listener:
        yield listener, listener.getsockname()[1]


@contextmanager
def saying_nothing() -> Iterator[int]:
    with silent() as (_, port):
        yield port


@contextmanager
def closing_at_once() -> Iterator[int]:
    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.close()

    with closing(socket.create_server(("localhost", 0))) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


NO_BROKERS = [
    (http_server, "an HTTP server (BaseHTTP"),
    (saying_nothing, "something that accepts connections and does not answer"),
    (closing_at_once, "something that closes the connection without an answer"),
]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """What a run that names no broker uses, where that of the URL is on the default port."""

    async def found(url: str) -> RunBroker:
        monkeypatch.setattr(broker_choice, "PORT", StreamUrl.parse(url).port)
        choice = BrokerChoice(Source.ANY, Connection(url))
        async with broker_for_run(choice) as it:
            return it

    monkeypatch.setattr(broker_choice, "broker_of_folder", lambda: None)
    monkeypatch.setattr(broker_choice, "PATIENCE", 0.3)
    return found


@pytest.mark.parametrize(("listener", "what"), NO_BROKERS)
async def test_no_broker_listens_there(used, listener, what: str) -> None:
    with listener() as port, pytest.raises(CommandError) as caught:
        await used(f"rabbitmq-stream://guest:guest@localhost:{port}")
    said = str(caught.value)
    assert said.startswith(f"no address was given, and localhost:{port} is not a broker: {what}")
    assert "give the address of a broker with --url or FLOWSTREAM_URL, or start one" in said
    assert caught.value.exit_code is ExitCode.CONNECTION


async def test_a_broker_that_is_found(used, broker: Broker) -> None:
    port = StreamUrl.parse(broker.url).port
    assert await what_listens("localhost", port) is None
    found = await used(broker.url)
    embedded = broker.management is None
    product = "an embedded broker, which behaves like RabbitMQ" if embedded else "RabbitMQ"
    assert found.lines[0].startswith(f"broker: {product} ")
    data = "that broker" if embedded else "the cluster"
    assert f":{port}, used because no address was given, data in {data}" in found.lines[0]
    assert "--create creates missing streams there, --embedded" in found.remedy
    assert not found.creates


@pytest.mark.slow
async def test_a_broker_that_is_found_and_lets_nobody_in(used, broker: Broker) -> None:
    with pytest.raises(CommandError, match=r"so the broker on localhost:\d+ was used; give"):
        await used(broker.url.replace("guest:guest", "guest:wrong"))


async def test_a_broker_that_is_named(broker: Broker) -> None:
    choice = BrokerChoice(Source.NAMED, Connection(broker.url), ".env: FLOWSTREAM_URL")
    async with broker_for_run(choice) as found:
        pass
    (line,) = found.lines
    assert ", address from .env: FLOWSTREAM_URL, data in " in line
    assert found.remedy.endswith(
        "with its address from .env: FLOWSTREAM_URL; --create creates missing streams"
    )


async def test_the_broker_of_this_folder_goes_before_the_default_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flowstream.broker import Broker as Embedded
    from flowstream.broker import find_local_broker

    await anyio.to_thread.run_sync(settings)  # as a command does before its loop
    async with Embedded(port=0, data=tmp_path / "data") as running:
        monkeypatch.setattr(
            broker_choice, "broker_of_folder", lambda: find_local_broker(tmp_path / "data")
        )
        async with broker_for_run(BrokerChoice(Source.ANY, Connection("unused"))) as found:
            assert found.connection.url == running.url
            assert found.creates
            assert "embedded, run in this folder by process" in found.lines[0]


def test_what_doctor_says_of_a_listener_that_is_no_broker(tmp_path: Path) -> None:
    with http_server() as port:
        url = f"rabbitmq-stream://localhost:{port}"
        result = flowstream("doctor", "--json", url=url, cwd=tmp_path, env=HURRY)
    found = {row["check"]: row["detail"] for row in result.json if row["about"] == "broker"}
    assert found["listener"].startswith(f"localhost:{port} is an HTTP server (BaseHTTP")
    assert "did not complete the handshake of the stream protocol" in found["connection"]


def test_ctrl_c_while_a_broker_does_not_answer(tmp_path: Path) -> None:
    target = write_module(tmp_path, "shop")
    with silent() as (listener, port):
        url = f"rabbitmq-stream://localhost:{port}"
        started = Started("run", target, url=url, cwd=tmp_path)
        with started as run, listener.accept()[0] as connection:
            connection.recv(1)
            run.signal(signal.SIGINT)
            result = run.end()
    assert (result.code, result.out) == (0, "shop: stopped before it was running\n")
