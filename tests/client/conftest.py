"""Fixtures of the client's tests: a scripted broker, an environment on it, what it told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowstream.client import Environment
from flowstream.telemetry import Event, Telemetry
from tests.client.scripted import Cluster

SECRET = "s3cr3t-passw0rd"
URL = f"rabbitmq-stream://guest:{SECRET}@node0:5552/%2f"

Connect = Callable[..., Environment]


class Recorder:
    """An observer that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event, /) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def connect(recorder: Recorder) -> Connect:
    """Makes environments that reach a scripted cluster instead of the network."""

    def make(cluster: Cluster, url: Any = URL, **options: Any) -> Environment:
        environment = Environment(url, telemetry=Telemetry(recorder), **options)
        environment._manager.dial = cluster.dial
        return environment

    return make


@pytest.fixture
def invoices(cluster: Cluster) -> Cluster:
    cluster.super_streams["invoices"] = [f"invoices-{n}" for n in range(3)]
    for name in cluster.super_streams["invoices"]:
        cluster.add(name)
    return cluster
