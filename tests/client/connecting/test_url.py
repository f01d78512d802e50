"""Addresses: what is read, what is refused, and that a password is never shown."""

from __future__ import annotations

import contextlib
import re
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client import DEFAULT_URL, Address, Environment, StreamUrl
from flowstream.client.connecting.url import UrlParts
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
        ("rabbitmq-stream://u:p%2Fq:r%25@Broker", StreamUrl("broker", 5552, False, "u", "p/q:r%")),
        ("rabbitmq-stream://u:@b", StreamUrl("b", 5552, False, "u", "")),
        (
            "rabbitmq-stream://b1:1,b2,[::1]:3/v",
            StreamUrl(
                *("b1", 1, False, "guest", "guest", "v"),
                others=(Address("b2", 5552), Address("::1", 3)),
            ),
        ),
        (
            "rabbitmq-stream+tls://u:p@b1,b2:1",
            StreamUrl("b1", 5551, True, "u", "p", others=(Address("b2", 1),)),
        ),
    ],
)
def test_urls_are_read(url: str, expected: StreamUrl) -> None:
    assert StreamUrl.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://u:secret@h", "scheme must be rabbitmq-stream://"),
        ("localhost:5552", "scheme must be"),
        ("rabbitmq-stream://u:secret@", "the host is missing"),
        ("rabbitmq-stream://u:secret@h/a/b", "%2f"),
        ("rabbitmq-stream://u:secret@h:99999", "the port after the host must be a number from 1"),
        ("rabbitmq-stream://u:secret@h:port", "the port after the host must be a number from 1"),
        ("rabbitmq-stream://u:secret@h:0", "the port after the host must be a number from 1"),
        ("rabbitmq-stream://u:secret@h:", "the port after the host must be a number from 1"),
        ("rabbitmq-stream://u:secret", "user and password end with an @"),
        ("rabbitmq-stream://u:secret@h?heartbeat=1", "not supported"),
        ("rabbitmq-stream://u:sec@ret@h#x", "not supported"),
        ("rabbitmq-stream://u:secret@[h", "must be an IPv6 address"),
        ("rabbitmq-stream://u:secret@[secret]", "must be an IPv6 address"),
        ("rabbitmq-stream://u:secret@::1:5552", r"write an IPv6 address as \[::1\]:5552"),
        ("rabbitmq-stream://u:secret@a,,b", "the host is missing"),
        ("rabbitmq-stream://u:secret@a,", "the host is missing"),
        ("rabbitmq-stream://u:secret@secret host", "the host may have only letters"),
        ("rabbitmq-stream://app:secret/9xQ@host", r'percent-encode "/" \(%2F\) in the password'),
        ("rabbitmq-stream://app:secret#9xQ@host", r'percent-encode "#" \(%23\) in the password'),
        ("rabbitmq-stream://app:secret?9xQ@host", r'percent-encode "\?" \(%3F\) in the password'),
        ("rabbitmq-stream://app:secret@9xQ@host", r'percent-encode "@" \(%40\) in the password'),
        ("rabbitmq-stream://app:[secret]@host", r'"\[" \(%5B\) and "\]" \(%5D\) in the password'),
        ("rabbitmq-stream://app:secret%@host", r'percent-encode "%" \(%25\) in the password'),
        ("rabbitmq-stream://app:secret%zz@host", r'percent-encode "%" \(%25\) in the password'),
        ("rabbitmq-stream://app:a secret@host", r"percent-encode spaces \(%20\) in the password"),
        ("rabbitmq-stream://app:sec\nret@host", "control characters such as line breaks"),
        ("rabbitmq-stream://app:secret\uff20x@host", "the characters outside ASCII"),
        ("rabbitmq-stream://app:secret\udc80x@host", "the characters outside ASCII"),
        ("rabbitmq-stream\uff1a//app:secret@host", "scheme must be"),
        ("rabbitmq-stream://app\uff1asecret@host", "characters outside ASCII .* in the user name"),
        ("rabbitmq-stream://me@work:secret@host", r'"@" \(%40\) in the user name'),
        ("rabbitmq-stream://u:secret%ff@h", "not UTF-8"),
        ("rabbitmq-stream://u:secret%00@h", "NUL"),
        ("rabbitmq-stream://u:secret@h\n", "white space at its start and end"),
        ("secret", "scheme must be"),
        ("", "it is empty"),
    ],
)
def test_what_cannot_work_is_refused_without_the_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        StreamUrl.parse(url)
    for error in (caught.value, caught.value.__cause__, caught.value.__context__):
        assert not re.search("secret|ret@|9xQ|app:", f"{error!r}")


@pytest.mark.parametrize("url", [None, b"rabbitmq-stream://u:secret@h", 7, ["rabbitmq-stream://h"]])
def test_a_url_is_a_string(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^url: expected a string") as caught:
        StreamUrl.parse(url)
    assert "secret" not in str(caught.value)


sendable = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


@given(st.text(sendable), st.text(sendable, min_size=1))
def test_the_password_is_in_no_text(user: str, password: str) -> None:
    url = StreamUrl("host", 5552, user=user, password="<" + password + ">")
    for text in (repr(url), str(url), f"{url}"):
        assert "<" + password + ">" not in text
    assert StreamUrl.parse(str(url)).user == user


@given(st.text(), st.text())
def test_a_url_that_is_encoded_is_read_whatever_the_password(user: str, password: str) -> None:
    """And one that is not is refused, or read as it was meant."""
    url = f"rabbitmq-stream://{quote(user, safe='')}:{quote(password, safe='')}@h"
    with contextlib.suppress(ConfigurationError):
        read = StreamUrl.parse(url)
        assert (read.user, read.password, read.host) == (user, password, "h")
        assert "\0" not in user + password
    with contextlib.suppress(ConfigurationError):
        read = StreamUrl.parse(f"rabbitmq-stream://app:{password}@h")
        assert (read.user, read.password, read.host) == ("app", unquote(password), "h")


def test_a_url_as_it_was_written_without_its_password() -> None:
    def shown(url: str) -> str:
        return UrlParts.split(url, schemes=("x",), example="x://host").shown

    assert shown("x://us%20er:p@host,b/v") == "x://us%20er:***@host,b/v"
    assert shown("x://user@host") == "x://user@host"
    assert shown("x://host:1") == "x://host:1"


def test_the_addresses_of_an_environment_belong_together() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Environment([])
    with pytest.raises(ConfigurationError, match="different virtual_host"):
        Environment(["rabbitmq-stream://a/x", "rabbitmq-stream://b/y"])
    with pytest.raises(ConfigurationError, match="different password") as caught:
        Environment(["rabbitmq-stream://u:s1@a", "rabbitmq-stream://u:s2@b"])
    assert "s1" not in str(caught.value)
