"""Which requests are refused, and with which status."""

from __future__ import annotations

import pytest

from flowstream.monitor import Request
from flowstream.monitor.guard import (
    Refused,
    check_site,
    checked_body,
    named_by_address,
    requester,
)

GOOD = {"host": "127.0.0.1:9464", "content-type": "application/json"}


def request(body: bytes = b"{}", /, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/api/control", {}, GOOD | named, body)


@pytest.mark.parametrize(
    ("host", "is_address"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9464", True),
        ("[::1]:9464", True),
        ("localhost", True),
        ("LOCALHOST:9464", True),
        ("10.0.0.7:80", True),
        ("", False),
        ("[::1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:9464", False),
        ("evil.example", False),
        ("user@127.0.0.1", True),  # no browser sends this as a host
    ],
)
def test_addresses_are_told_from_names(host: str, is_address: bool) -> None:
    assert named_by_address(request(host=host)) is is_address


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"host": "evil.example"}, "host 'evil.example': use an IP address or localhost"),
        ({"origin": "http://evil.example"}, "pages of http://evil.example may not"),
        ({"origin": "null"}, "pages of null may not"),
        ({"sec_fetch_site": "cross-site"}, "pages of other sites may not"),
    ],
)
def test_requests_of_other_sites_are_forbidden(headers: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        check_site(request(**headers))
    assert refused.value.response().status == 403
    assert refused.value.response().body.decode() == f"{refused.value}\n"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_change_is_a_json_object(kind: str) -> None:
    assert checked_body(request(b'{"a": 1}', content_type=kind)) == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b"\xff"])
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="must be a JSON object") as refused:
        checked_body(request(body))
    assert refused.value.status == 400


def test_a_form_is_refused() -> None:
    with pytest.raises(Refused, match="must be application/json") as refused:
        checked_body(request(content_type="text/plain"))
    assert refused.value.status == 415


def test_who_sent_it_is_named_by_address() -> None:
    assert requester(request()) == "the live page"
    sent = Request("POST", "/", {}, GOOD, peer="10.0.0.7")
    assert requester(sent) == "the live page (10.0.0.7)"
