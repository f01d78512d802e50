"""Fixtures for all tests.

- `rabbitmq`: the test runs once per single real RabbitMQ that is up (see tests/brokers).
- `broker`: the same, and once more on the embedded broker.
- `cluster`: the three nodes of the real cluster.
- `certificates`: for the brokers' TLS ports.
- `stream_name`: a name of the test's own; streams that begin with it are deleted after it.
- Async tests run on asyncio, and on trio too with `@pytest.mark.both_backends`. What
  flowstream calls on an asyncio loop must not block it (blockbuster).

Which brokers took part is told at the end of every run. With
TESTS_REQUIRE_BROKERS=3.10,4.0 a broker that is not up, or on which no test
ran, fails the run instead.
"""

from __future__ import annotations

import importlib
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager

import hypothesis
import pytest
from blockbuster import BlockBuster

from flowstream.testing import broker_in_thread
from tests.brokers.running import Broker, Certificates, running
from tests.brokers.running import certificates as find_certificates


@contextmanager
def embedded_broker() -> Iterator[Broker]:
    """The embedded broker, served in a thread, on a free port, from empty data."""
    with broker_in_thread() as running:
        yield Broker(name="embedded", version=(4, 3, 6), url=running.url)


# The one place where the embedded broker joins the integration suite.
EMBEDDED: Callable[[], AbstractContextManager[Broker]] | None = embedded_broker

REQUIRED = tuple(filter(None, os.environ.get("TESTS_REQUIRE_BROKERS", "").split(",")))
RUNNING = running()
SINGLE = sorted({*RUNNING, *REQUIRED} - {"cluster"}, key=lambda name: [*map(int, name.split("."))])
passed_on: Counter[str] = Counter()

hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
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
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    if request.param == "embedded":
        assert EMBEDDED is not None
        with EMBEDDED() as embedded:
            yield embedded
    else:
        yield nodes_of(request.param)[0]


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
    embedded = ["embedded"] if EMBEDDED is not None else []
    for fixture, names in (("rabbitmq", real), ("broker", [*embedded, *real])):
        if fixture in metafunc.fixturenames:
            marked = [
                pytest.param(name, marks=() if name == "embedded" else pytest.mark.broker)
                for name in names
            ]
            metafunc.parametrize(fixture, marked, indirect=True, scope="session")
    if metafunc.definition.get_closest_marker("both_backends"):
        metafunc.parametrize("anyio_backend", ["asyncio", "trio"])


def pytest_itemcollected(item: pytest.Item) -> None:
    if on_the_cluster(item):
        item.add_marker("broker")


def on_the_cluster(item: pytest.Item) -> bool:
    """Whether the test asks for the real cluster, and not for a fixture that has its name."""
    info = getattr(item, "_fixtureinfo", None)
    found = info.name2fixturedefs.get("cluster") if info is not None else None
    return found is not None and found[-1].baseid == "tests"


# -- the loop ------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call in flowstream on a running asyncio loop raises BlockingError."""
    if "anyio_backend" not in request.fixturenames or request.node.get_closest_marker("benchmark"):
        yield
        return
    guard = BlockBuster(importlib.import_module("flowstream"))
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


# -- which brokers took part ---------------------------------------------------------


def broker_of(item: pytest.Item) -> str | None:
    if on_the_cluster(item):
        return "cluster"
    callspec = getattr(item, "callspec", None)
    parameters = {} if callspec is None else callspec.params
    name = parameters.get("rabbitmq", parameters.get("broker"))
    return None if name is None else str(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed and (name := broker_of(item)):
        passed_on[name] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and any(not passed_on[name] for name in REQUIRED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("brokers")
    for name, nodes in RUNNING.items():
        version = ".".join(map(str, nodes[0].version))
        ports = ", ".join(str(node.port) for node in nodes)
        line = f"{name}: RabbitMQ {version} on {ports}, {passed_on[name]} tests passed on it"
        terminalreporter.write_line(line)
    if passed_on["embedded"]:
        terminalreporter.write_line(f"embedded: {passed_on['embedded']} tests passed on it")
    if not RUNNING:
        terminalreporter.write_line("no real RabbitMQ is up: run `make brokers` (as root)")
    for name in REQUIRED:
        if not passed_on[name]:
            terminalreporter.write_line(f"{name}: REQUIRED, but no test passed on it", red=True)
