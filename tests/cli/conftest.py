"""Which brokers the command line is run against.

What differs between brokers is tested in integration/; a test here is about a command, and each
command is a process. So they run on the embedded broker and on one real one (the newest of those
that CI requires), and only those marked `every_broker` on all.
"""

from __future__ import annotations

import pytest

REAL = "4.0"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not _wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _wanted(item)]


def _wanted(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if "tests/cli/" not in str(item.path) or callspec is None:
        return True
    if item.get_closest_marker("every_broker"):
        return True
    return callspec.params.get("broker", "embedded") in {"embedded", REAL}
