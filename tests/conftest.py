"""Fixtures for all tests.

- `rabbitmq`: the test runs once per single real RabbitMQ that is up (see tests/brokers).
- `broker`: the same, and once more on the embedded broker.
- `cluster`: the three nodes of the real cluster.
- `certificates`: for the brokers' TLS ports.
- `postgres`: a real PostgreSQL, where the machine has its binaries (tests/support/postgres.py).
- `stream_name`: a name of the test's own; streams that begin with it are deleted after it.
- Async tests run on asyncio, and on trio too with `@pytest.mark.both_backends`. What
  flowstream calls on an asyncio loop must not block it (blockbuster).

The report names the brokers that took part at the end of every run. With
TESTS_REQUIRE_BROKERS=3.10,4.0 a broker that is not up, or on which no test
ran, fails the run instead.

Tests may run in several processes (pytest-xdist): ports and folders are a test's own, stream
names too, so real brokers are shared. What must not meet is named in tests/support/report.py.
"""

from __future__ import annotations

import importlib
import os
import re
import uuid
from collections.abc import Iterator

import hypothesis
import pydantic
import pytest
from blockbuster import BlockBuster

from flowstream.testing import broker_in_thread
from tests.brokers.running import REQUIRED, Broker, Certificates, running
from tests.brokers.running import certificates as find_certificates

pytest_plugins = [
    *("tests.support.report", "tests.support.evidence", "tests.support.passed"),
    "tests.support.postgres",
]

RUNNING = running()
SINGLE = sorted({*RUNNING, *REQUIRED} - {"cluster"}, key=lambda name: [*map(int, name.split("."))])

hypothesis.settings.register_profile("fast", deadline=None, max_examples=10, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None, max_examples=20, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=300, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# -- brokers -------------------------------------------------------------------------


def nodes_of(name: str) -> tuple[Broker, ...]:
    """The nodes of a broker that is up; else the test is skipped, or fails if it is required."""
    if nodes := RUNNING.get(name):
        return nodes
    message = f"RabbitMQ {name} is not up: run `make brokers` (as root)"
    if name in REQUIRED:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Broker:
    return nodes_of(request.param)[0]


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    """The embedded broker, served in a thread, on a free port, from empty data."""
    with broker_in_thread() as served:
        yield Broker(name="embedded", version=(4, 3, 6), url=served.url)


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "embedded":
        embedded: Broker = request.getfixturevalue("embedded_broker")
        return embedded
    return nodes_of(request.param)[0]


@pytest.fixture(scope="session")
def cluster() -> tuple[Broker, ...]:
    return nodes_of("cluster")


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    found = find_certificates()
    if found is None:
        pytest.skip("no certificates: run `make brokers` (as root)")
    return found


@pytest.fixture
def stream_name(request: pytest.FixtureRequest) -> Iterator[str]:
    test = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    name = f"{test[:80]}.{uuid.uuid4().hex[:8]}"
    used = {"rabbitmq", "broker", "cluster"} & set(request.fixturenames)
    brokers = [request.getfixturevalue(fixture) for fixture in used]
    yield name
    for each in brokers:
        node = each[0] if isinstance(each, tuple) else each
        if node.management is not None:
            node.remove(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    real = SINGLE or ["4.0"]  # none is up: one parameter, to be skipped with the reason
    for fixture, names in (("rabbitmq", real), ("broker", ["embedded", *real])):
        if fixture in metafunc.fixturenames:
            marked = [
                pytest.param(name, marks=() if name == "embedded" else pytest.mark.broker)
                for name in names
            ]
            metafunc.parametrize(fixture, marked, indirect=True, scope="session")
    if metafunc.definition.get_closest_marker("both_backends"):
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"])


# -- the loop ------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def guard() -> BlockBuster:
    """Made once: it inspects what it wraps, which takes longer than to wrap it.

    Pydantic looks for its plugins, blocking, with its first schema: that is done before.
    """
    pydantic.TypeAdapter(dict[str, int])
    return BlockBuster(importlib.import_module("flowstream"))


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest, guard: BlockBuster) -> Iterator[None]:
    """A blocking call in flowstream on a running asyncio loop raises BlockingError."""
    if "anyio_backend" not in request.fixturenames or request.node.get_closest_marker("benchmark"):
        yield
        return
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()
