"""The management API's address: what is read, what is refused, and what an error may say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.management import Management


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", Management("http://host", "guest", "guest")),
        ("https://u:p%2Fq@Host:1/x/", Management("https://host:1/x", "u", "p/q")),
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


def test_it_is_beside_the_first_broker_of_the_url() -> None:
    found = Management.beside("rabbitmq-stream://u:p%40@[::1]:5552,b2/v")
    assert found == Management("http://[::1]:15672", "u", "p@")


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
        ("text", "what answers is not the management API"),
        ("odd", "what answers is not the management API"),
        ("down", "answered 503 Service Unavailable"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_ours(odd: str, path: str, says: str) -> None:
    """And the credentials go to no other address."""
    with pytest.raises(CommandError, match=says) as caught:
        Management.parse(odd).get(path)
    assert "secret" not in str(caught.value)
    assert "/api/other" not in Odd.seen
