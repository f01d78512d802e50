"""The management API's address: what is read, what is refused, and what an error may say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from flowstream.cli.configuration.settings import settings
from flowstream.cli.connection import management
from flowstream.cli.connection.management import Management
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.readers.active_readers import ReaderQuery, ReaderReport, running_reader
from flowstream.client import Environment
from tests.brokers.running import Broker


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", Management("http://host", "guest", "guest")),
        ("https://u:p%2Fq@Host:1/x/", Management("https://host:1/x", "u", "p/q")),
        ("http://host:15672/rabbit/api/", Management("http://host:15672/rabbit", "guest", "guest")),
        ("http://u@[::1]:15672", Management("http://[::1]:15672", "u", "guest")),
    ],
)
def test_addresses_are_read(url: str, expected: Management) -> None:
    assert Management.parse(url) == expected
    assert "p/q" not in repr(expected)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://admin:secret/x@host", r'percent-encode "/" \(%2F\) in the password'),
        ("http://admin:secret#x@host:1", r'percent-encode "#" \(%23\) in the password'),
        ("http://admin:[secret]@host", "in the password"),
        ("http://admin:sec\nret@host", "in the password"),
        ("http://admin:secret", "port"),
        ("http://admin:secret@h1,h2", "one host"),
        ("http://h/secret x", r"percent-encode spaces \(%20\) in the path"),
        ("secret", "scheme must be http:// or https://"),
        ("", "it is empty"),
    ],
)
def test_what_cannot_work_is_refused_without_the_password(url: str, says: str) -> None:
    with pytest.raises(CommandError, match=f"^--management: .*{says}") as caught:
        Management.parse(url)
    assert caught.value.exit_code is ExitCode.USAGE
    error: BaseException | None = caught.value
    while error is not None:
        assert not re.search("secret|sec\n|ret@", f"{error!r}")
        error = error.__cause__ or error.__context__


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


@pytest.fixture(autouse=True)
def settings_are_read() -> None:
    """As a command does it before it has a loop: they are read once for all, blocking."""
    settings()


async def reader(broker: Broker, named: str | None = None) -> ReaderReport:
    query = ReaderQuery(broker.url, "me", "s", (), management=named, watch=0)
    async with Environment(broker.url) as environment:
        return await running_reader(environment, query)


@pytest.mark.anyio
async def test_readers_are_not_looked_for_at_another_broker(broker: Broker, api: type[Api]) -> None:
    answer = await reader(broker)
    assert (answer.seen, answer.asked) == (None, "")
    assert "no management API" in answer.blind or "belongs to the cluster" in answer.blind
    with pytest.raises(CommandError, match="belongs to the cluster 'another cluster', but the b"):
        await reader(broker, f"http://127.0.0.1:{management.PORT}")


@pytest.mark.anyio
@pytest.mark.parametrize("tags", [["administrator"], ["monitoring"], ["management"]])
async def test_a_user_who_may_not_see_all_readers_is_said_to(
    broker: Broker, api: type[Api], tags: list[str]
) -> None:
    async with Environment(broker.url) as environment:
        api.named = (await environment.server_info()).properties["cluster_name"]
    api.tags = tags
    base = f"http://127.0.0.1:{management.PORT}"
    answer = await reader(broker, base)
    if tags == ["management"]:
        assert "does not show consumers of other users" in answer.blind
    else:
        assert (answer.asked, answer.blind) == (f"the management API at {base}", "")


class Odd(BaseHTTPRequestHandler):
    """Answers by path: a redirection to another place, what is no JSON, what is no HTTP."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if "away" in self.path:
            self.send_response(302)
            self.send_header("location", f"http://{self.headers['host']}/api/other")
            self.end_headers()
        elif "text" in self.path:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"no JSON")
        elif "odd" in self.path:
            self.wfile.write(b"not HTTP\r\n\r\n")
        else:
            self.send_error(503, "secret")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    Odd.seen = []
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://admin:secret@127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("away", "answered 302 Found"),
        ("text", "the answer is not that of a management API"),
        ("odd", "the answer is not that of a management API"),
        ("down", "answered 503 Service Unavailable"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_ours(odd: str, path: str, says: str) -> None:
    """And the credentials go to no other address."""
    with pytest.raises(CommandError, match=says) as caught:
        Management.parse(odd).get(path)
    assert "secret" not in str(caught.value)
    assert "/api/other" not in Odd.seen


def test_a_host_name_that_cannot_be_is_said_to_be_unknown() -> None:
    with pytest.raises(CommandError, match=r"http://h\.\.x \(the host name does not resolve\)"):
        Management.parse("http://h..x").get("overview")
