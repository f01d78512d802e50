"""Tests are found where their source is: `tests/` mirrors `flowstream/`, a file for a file.

`flowstream/pipeline/stages/batcher.py` is tested in `tests/pipeline/stages/test_batcher.py`. Tests
that need no single file, such as those of the order of messages, are in the folder `behaviour` of
their room; those of several rooms, or of what is around the package, have folders of their own.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = 40
"""Lines up to which a source file may be tested by its neighbours."""
NOT_MIRRORS = {"__init__.py", "__main__.py"}

TESTED_ELSEWHERE = {
    # Values and tables without a line of logic: whatever uses them is their test.
    "broker/records.py": "tests/broker/test_store.py",
    "protocol/commands.py": "tests/protocol/test_codec.py",
    "pipeline/handler_types.py": "tests/typing/test_typing.py",
    "protocol/session.py": "tests/protocol/test_codec.py",
    "protocol/values.py": "tests/protocol/test_codec.py",
    "testing/markers.py": "tests/testing/test_memory_stream.py",
    # Runs that die at any effect, and what each message became.
    "connectors/stream_sink_once.py": "tests/connectors/behaviour/test_exactly_once.py",
    "pipeline/stages/ordered_batcher.py": "tests/connectors/behaviour/test_exactly_once.py",
    # What commands share, seen by what they print: through a pipe, on a terminal and as JSON.
    "cli/configuration/defaults.py": "tests/cli/connection/test_connect.py",
    "cli/connection/streams.py": "tests/cli/commands/test_streams.py",
    "cli/diagnosis/pipelines.py": "tests/cli/commands/test_check.py",
    "cli/event_loop.py": "tests/cli/behaviour/test_interrupts.py",
    "cli/parser/options.py": "tests/cli/behaviour/test_usage.py",
    "cli/pipelines/describe.py": "tests/cli/commands/test_check.py",
    "cli/pipelines/sink_records.py": "tests/cli/commands/test_sinks.py",
    "connectors/published_record.py": "tests/cli/commands/test_sinks.py",
    "cli/readers/monitor_client.py": "tests/cli/commands/test_top.py",
    "client/connecting/transport.py": "tests/integration/test_client_security.py",
    # Parent and workers are seen together: processes, signals and what they say.
    "cli/workers/control.py": "tests/cli/commands/test_workers.py",
    "cli/workers/link.py": "tests/cli/workers/test_parent.py",
    "cli/workers/process.py": "tests/cli/workers/test_parent.py",
    "cli/workers/worker.py": "tests/cli/workers/test_parent.py",
    "monitor/workers/pipelines.py": "tests/monitor/workers/test_snapshots.py",
    "monitor/workers/views.py": "tests/monitor/workers/test_snapshots.py",
    "cli/running/supervisor.py": "tests/cli/commands/test_run.py",
}
"""Source files without a test file of their own, and where they are tested."""

AROUND = {
    *(
        "benchmarks",
        "brokers",
        "chaos",
        "deploy",
        "grafana",
        "integration",
        "pipelines",
        "simulation",
    ),
    *("support", "typing"),
}
"""Folders for what is no room: whole systems, and what is around the package."""


def mirror(source: Path) -> Path:
    """Where the tests of a source file are."""
    inside = source.relative_to(ROOT / "flowstream")
    if inside.parts[:2] == ("cli", "usage"):  # a command's usage is tested with its work
        inside = Path("cli", "commands", inside.name)
    return ROOT / "tests" / inside.parent / f"test_{inside.name}"


def sources() -> list[Path]:
    return [
        file for file in sorted((ROOT / "flowstream").rglob("*.py")) if file.name not in NOT_MIRRORS
    ]


def is_small(file: Path) -> bool:
    return len(file.read_text().splitlines()) <= SMALL


def test_every_source_file_has_its_test_file() -> None:
    without = [
        str(file.relative_to(ROOT / "flowstream"))
        for file in sources()
        if not mirror(file).exists() and not is_small(file)
    ]
    assert sorted(set(without) - TESTED_ELSEWHERE.keys()) == [], "write one, or say where it is"


def test_every_test_file_has_its_source_file() -> None:
    mirrors = {mirror(file) for file in sources()}
    lost = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if file not in mirrors
        and file.parent != ROOT / "tests"
        and file.relative_to(ROOT / "tests").parts[0] not in AROUND
        and file.parent.name != "behaviour"
    ]
    assert lost == [], "move it to the test of a source file, or to behaviour/"


def test_what_is_tested_elsewhere_is() -> None:
    for source, test in TESTED_ELSEWHERE.items():
        file = ROOT / "flowstream" / source
        assert file.exists(), f"{source} is gone: remove its line"
        assert not mirror(file).exists(), f"{source} has a test file: remove its line"
        assert (ROOT / test).exists(), f"{test} is gone: where is {source} tested now?"
