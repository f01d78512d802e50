"""The management API is found beside the broker, and one of another broker is not asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from flowstream.cli.connection import management
from flowstream.cli.connection.find_management import ask_for_list
from flowstream.cli.connection.management import Management
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.client import Address, StreamUrl
from tests.brokers.running import Broker


def test_it_is_beside_the_node_that_answered() -> None:
    url = StreamUrl.parse("rabbitmq-stream://u:p%40@b1,[::1]:5552/v")
    found = Management.beside(url, Address("::1", 5552), "ca.pem")
    assert found == Management("http://[::1]:15672", "u", "p@")


def test_where_the_broker_has_tls_no_password_goes_without() -> None:
    url = StreamUrl.parse("rabbitmq-stream+tls://u:p@host")
    found = Management.beside(url, Address("host", 5551), "ca.pem")
    assert found == Management("https://host:15671", "u", "p", "ca.pem")


class Api(BaseHTTPRequestHandler):
    """The API of a cluster `named`, in which nobody consumes; its user has `tags`."""

    named: str
    tags: list[str]
    seen: list[str]

    def do_GET(self) -> None:
        path = self.path.removeprefix("/api/").partition("?")[0]
        self.seen.append(path)
        found: Any = {
            "overview": {"cluster_name": self.named},
            "whoami": {"name": "guest", "tags": self.tags},
            "exchanges/%2F": {"page_count": 1, "items": []},
        }.get(path, [])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Api]]:
    """What listens where a broker's API usually is."""

    class Mine(Api):
        named, tags, seen = "another cluster", ["administrator"], []

    with HTTPServer(("127.0.0.1", 0), Mine) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setattr(management, "PORT", server.server_port)
        yield Mine
        server.shutdown()


def listed(url: str, named: str | None = None) -> list[str]:
    return ask_for_list(url, named, Management.super_streams)


def test_the_api_of_another_broker_is_not_asked(broker: Broker, api: type[Api]) -> None:
    """On one host there may be several brokers: one of them has the usual port."""
    with pytest.raises(CommandError, match=r"no management API|belongs to the cluster") as caught:
        listed(broker.url)
    assert caught.value.exit_code is ExitCode.CONNECTION
    assert "--management URL" in str(caught.value)
    assert api.seen == ([] if broker.management is None else ["overview"])


def test_the_brokers_own_api_is_asked_and_named(
    rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(rabbitmq.management).rpartition("@")[2]
    monkeypatch.setattr(management, "PORT", int(base.rpartition(":")[2]))
    listed(rabbitmq.url)
    assert capsys.readouterr().err == f"asked the management API at http://{base}\n"


def test_what_was_named_is_asked_and_named_in_the_output(
    api: type[Api], capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"http://127.0.0.1:{management.PORT}"
    assert listed("rabbitmq-stream://nowhere.invalid", base) == []
    assert capsys.readouterr().err == f"asked the management API at {base}\n"
