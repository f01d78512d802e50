"""Both environments have what connectors need: mypy checks the signatures, the test the names."""

from __future__ import annotations

import inspect

import pytest

from flowstream.client import Environment
from flowstream.connectors import StreamEnvironment
from flowstream.testing import MemoryEnvironment


def of_the_client(environment: Environment) -> StreamEnvironment:
    return environment


def in_memory(environment: MemoryEnvironment) -> StreamEnvironment:
    return environment


@pytest.mark.parametrize("kind", [Environment, MemoryEnvironment])
def test_an_environment_has_every_method_that_connectors_use(kind: type) -> None:
    needed = {
        name
        for name, _ in inspect.getmembers(StreamEnvironment, inspect.isfunction)
        if not name.startswith("_")
    }
    assert len(needed) > 15
    assert {name for name in needed if not callable(getattr(kind, name, None))} == set()
