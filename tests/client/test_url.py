"""Addresses: what is read, what is refused, and that a password is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client import DEFAULT_URL, Environment, StreamUrl
from flowstream.client.url import mask
from flowstream.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (DEFAULT_URL, StreamUrl("localhost", 5552)),
        ("rabbitmq-stream://broker", StreamUrl("broker", 5552)),
        ("rabbitmq-stream+tls://broker/", StreamUrl("broker", 5551, tls=True)),
        ("rabbitmq-stream://u@b:1/v", StreamUrl("b", 1, False, "u", "guest", "v")),
        ("rabbitmq-stream://u:p%40%3A@b/a%2Fb", StreamUrl("b", 5552, False, "u", "p@:", "a/b")),
        ("rabbitmq-stream://[::1]:5553/%2f", StreamUrl("::1", 5553)),
    ],
)
def test_urls_are_read(url: str, expected: StreamUrl) -> None:
    assert StreamUrl.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://u:secret@h", "scheme must be rabbitmq-stream://"),
        ("localhost:5552", "scheme must be"),
        ("rabbitmq-stream://u:secret@", "a host is missing"),
        ("rabbitmq-stream://u:secret@h/a/b", "%2f"),
        ("rabbitmq-stream://u:secret@h:99999", "not a URL"),
        ("rabbitmq-stream://u:secret@h:port", "not a URL"),
        ("rabbitmq-stream://u:secret@h?heartbeat=1", "not understood"),
        ("rabbitmq-stream://u:sec@ret@h#x", "not understood"),
        ("rabbitmq-stream://u:secret@[h", "not a URL"),
    ],
)
def test_what_cannot_work_is_refused_without_the_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        StreamUrl.parse(url)
    assert "secret" not in str(caught.value)
    assert "ret@" not in str(caught.value)


@given(st.text(), st.text(min_size=1))
def test_the_password_is_in_no_text(user: str, password: str) -> None:
    url = StreamUrl("host", 5552, user=user, password="<" + password + ">")
    for text in (repr(url), str(url), f"{url}"):
        assert "<" + password + ">" not in text
    assert StreamUrl.parse(str(url)).user == user


def test_a_url_of_any_shape_is_masked() -> None:
    assert mask("x://user:p@ss@host") == "x://user:***@host"
    assert mask("x://user@host") == "x://user@host"
    assert mask("nothing") == "nothing"


def test_the_addresses_of_an_environment_belong_together() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Environment([])
    with pytest.raises(ConfigurationError, match="same virtual_host"):
        Environment(["rabbitmq-stream://a/x", "rabbitmq-stream://b/y"])
    with pytest.raises(ConfigurationError, match="same password") as caught:
        Environment(["rabbitmq-stream://u:s1@a", "rabbitmq-stream://u:s2@b"])
    assert "s1" not in str(caught.value)
