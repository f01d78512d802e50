"""The rings of the tests, what each took, which brokers took part, and `--repeat` to hunt races.

The rings are drawn by markers, so that one place says where a test runs:

- fast: no broker, not even the embedded one, nothing `medium`, in the folders of `FAST`, and only
  on asyncio what runs on asyncio and on trio; properties draw few examples: `make test-fast`
- test: no real broker, nothing long: `make test`
- all the others, which need a real RabbitMQ (`broker`), a browser (`browser`), kill processes
  (`chaos`), or are long (`slow`, and what is `medium` again on trio): `make test-all`

Reports reach this plugin in the process that was started, whichever worker ran the test.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from tests.brokers.running import REQUIRED, running

TESTS = Path(__file__).resolve().parents[1]
FAST = ("pipeline", "protocol", "client", "connectors", "testing", "broker")
LONG = ("broker", "chaos", "browser", "slow")
TOGETHER = {
    "tests/benchmarks/test_bodies.py": "bodies",
    "tests/chaos/test_sizes_memory.py": "frame_max of a broker",
    "tests/integration/test_before_open.py": "frame_max of a broker",
    "tests/grafana/test_real_run.py": "real run",
    "tests/monitor/behaviour/test_page.py": "browser",
}
"""Files whose tests share what is used by one at a time: an option of a broker, a run with its
Prometheus, the window of a browser; or what takes long to make. The cluster, whose nodes are
killed, has a run of its own: `-m cluster`."""
RING = "ring"
TOOK_PART = "broker"
"""The user properties of a report: the ring of its test, and the broker that it ran on."""

passed_on: Counter[str] = Counter()
tests_of: Counter[str] = Counter()
seconds_of: defaultdict[str, float] = defaultdict(float)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flowstream")
    group.addoption("--repeat", type=int, default=1, help="run each test this many times")
    group.addoption("--ring", choices=("fast", "test", "all"), help="run the tests of one ring")


def pytest_configure(config: pytest.Config) -> None:
    """One seed for all workers, printed in the header: a failure can be repeated with it.

    Ctrl-C is one also where a shell started the tests in the background, which ignores it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("hypothesis_seed", None) is None and not is_worker(config):
        config.option.hypothesis_seed = random.randrange(2**32)
    if config.getoption("ring") == "fast" and "HYPOTHESIS_PROFILE" not in os.environ:
        hypothesis.settings.load_profile("fast")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: --hypothesis-seed={config.getoption('hypothesis_seed')}"


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several that run the tests."""
    return hasattr(config, "workerinput")


# -- rings ---------------------------------------------------------------------------


def ring_of(item: pytest.Item) -> str:
    """The smallest ring that a test belongs to, or what makes it long."""
    marked = {marker.name for marker in item.iter_markers()}
    if long := next((name for name in LONG if name in marked), None):
        return long
    if "medium" in marked and on_trio(item):
        return "slow"
    if "medium" in marked or on_trio(item) or broker_of(item) is not None:
        return "test"
    return "fast" if item.nodeid.split("/")[1] in FAST else "test"


def on_trio(item: pytest.Item) -> bool:
    """Whether the test is the variant on trio of one that also runs on asyncio."""
    chosen = parameters(item)
    backend = chosen.get("anyio_backend", chosen.get("backend"))
    return "trio" in (backend if isinstance(backend, tuple) else (backend,))


def parameters(item: pytest.Item) -> dict[str, Any]:
    """The parameters that a test has this time."""
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders that have nothing of the fast ring are not even imported for it."""
    if config.getoption("ring") != "fast" or TESTS not in collection_path.parents:
        return None
    return collection_path.relative_to(TESTS).parts[0] not in FAST or None


def on_the_cluster(item: pytest.Item) -> bool:
    """Whether the test asks for the real cluster, and not for a fixture that has its name."""
    info = getattr(item, "_fixtureinfo", None)
    found = info.name2fixturedefs.get("cluster") if info is not None else None
    return found is not None and found[-1].baseid == "tests"


def broker_of(item: pytest.Item) -> str | None:
    """The name of the broker that a test runs on."""
    if on_the_cluster(item):
        return "cluster"
    chosen = parameters(item)
    name = chosen.get("rabbitmq", chosen.get("broker"))
    return None if name is None else str(name)


def pytest_itemcollected(item: pytest.Item) -> None:
    if on_the_cluster(item):
        item.add_marker("broker")
        item.add_marker("cluster")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {"fast": {"fast"}, "test": {"fast", "test"}}.get(config.getoption("ring"))
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        ring = ring_of(item)
        item.user_properties += [(RING, ring), (TOOK_PART, broker_of(item))]
        (kept if wanted is None or ring in wanted else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


# -- several processes ---------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What is collected lives as long as the run, so the collector of garbage never looks at it.

    In each process that is a fifth of the time of collecting, and a part of the time of each test.
    """
    gc.disable()
    try:
        import_files(session)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def import_files(session: pytest.Session) -> None:
    """Import the test files, in each process from another one on.

    All processes need all files. If they imported them in one order, each would compile every file
    of a fresh clone, at the same time as the others; now most are compiled by another process.
    """
    config = session.config
    if not is_worker(config) or TESTS not in (Path(each).resolve() for each in config.args):
        return
    files = sorted(TESTS.rglob("test_*.py"))
    worker: dict[str, Any] = vars(config)["workerinput"]
    first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for file in files[first:] + files[:first]:
        if not pytest_ignore_collect(file, config):
            name = ".".join(file.relative_to(TESTS.parent).with_suffix("").parts)
            # What cannot be imported is reported when it is collected.
            with contextlib.suppress(Exception, pytest.skip.Exception, pytest.fail.Exception):
                importlib.import_module(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Hypothesis's table of the characters of UTF-8, which is kept in a file.

    It takes three seconds in a fresh clone: once, while the processes collect, not in each of them.
    """
    table = strategies.characters(codec="utf-8")
    threading.Thread(target=table.validate, name="table of characters", daemon=True).start()


def group_of(nodeid: str) -> str:
    """Tests of one group run in one process, one after the other; most are alone in theirs."""
    return TOGETHER.get(nodeid.partition("::")[0], nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process gets the next test, or the next group (xdist_group needs an older pytest)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            """Forget a group that is done: each test would count again all that came before it."""
            super().mark_test_complete(node, item_index, duration)
            groups = self.assigned_work[node]
            group = group_of(self.registered_collections[node][item_index])
            if all(groups[group].values()):
                del groups[group]

    return ByGroup(config, log)


# -- repeating -----------------------------------------------------------------------


@pytest.fixture
def repetition(request: pytest.FixtureRequest) -> int:
    """The number of this run of the test, with `--repeat`."""
    return int(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    times = metafunc.config.getoption("repeat")
    if times > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times), indirect=True)


# -- what took part ------------------------------------------------------------------


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    said = dict(report.user_properties)
    if RING not in said:  # made by xdist, for a test whose process crashed
        return
    ring = str(said[RING])
    seconds_of[ring] += report.duration
    if report.when != "call":
        return
    tests_of[ring] += 1
    if report.passed and (name := said.get(TOOK_PART)):
        passed_on[str(name)] += 1


def required(config: pytest.Config) -> list[str]:
    """The brokers that this run must take: the cluster has one of its own (`make test-all`)."""
    if config.getoption("collectonly") or config.getoption("ring") in ("fast", "test"):
        return []  # what runs there needs none
    chosen = str(config.getoption("markexpr"))
    if chosen == "cluster":
        return [name for name in REQUIRED if name == "cluster"]
    return [name for name in REQUIRED if name != "cluster" or "not cluster" not in chosen]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    missing = not is_worker(config) and any(not passed_on[name] for name in required(config))
    if missing and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    write = terminalreporter.write_line
    terminalreporter.section("rings")
    for ring in ("fast", "test", *LONG):
        if tests_of[ring]:
            write(f"{ring}: {tests_of[ring]} tests, {seconds_of[ring]:.0f} s of all workers")
    terminalreporter.section("brokers")
    for name, nodes in running().items():
        version = ".".join(map(str, nodes[0].version))
        ports = ", ".join(str(node.port) for node in nodes)
        write(f"{name}: RabbitMQ {version} on {ports}, {passed_on[name]} tests passed on it")
    if passed_on["embedded"]:
        write(f"embedded: {passed_on['embedded']} tests passed on it")
    if not running():
        write("no real RabbitMQ is up: run `make brokers` (as root)")
    for name in required(terminalreporter.config):
        if not passed_on[name]:
            write(f"{name}: REQUIRED, but no test passed on it", red=True)
