"""Fixtures, for those who want them. Nothing loads this by itself: name it in the top conftest.py.

    pytest_plugins = ["flowstream.testing.pytest_plugin"]

`flowstream_broker`   the embedded broker, in memory on a free port, for the whole session
`flowstream_url`      its URL, which FLOWSTREAM_URL names too for the test: what connects without
                      an address connects there
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstream.broker import Broker
from flowstream.testing.brokers import broker_in_thread


@pytest.fixture(scope="session")
def flowstream_broker() -> Iterator[Broker]:
    """The embedded broker, shared by all tests: name streams of your own in each."""
    with broker_in_thread() as broker:
        yield broker


@pytest.fixture
def flowstream_url(flowstream_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    """The broker's URL, and what connects by default connects there."""
    monkeypatch.setenv("FLOWSTREAM_URL", flowstream_broker.url)
    return flowstream_broker.url
