"""Both environments have what connectors need: mypy checks the signatures, the test the names."""

from __future__ import annotations

import inspect
import socket

import pytest

from flowstream import Message, Pipeline, StreamProducer
from flowstream.client import Environment
from flowstream.connectors import StreamEnvironment
from flowstream.errors import ConfigurationError, ConnectionFailed
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


@pytest.mark.anyio
async def test_an_address_that_cannot_be_one_is_refused_and_never_taken_for_localhost(monkeypatch):
    pipeline = Pipeline("p", StreamProducer("s"))

    @pipeline.processor()
    async def handle(message: Message[bytes]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^url: it is empty"):
        await pipeline.run(url="")
    monkeypatch.setenv("FLOWSTREAM_URL", "")
    with pytest.raises(ConfigurationError, match=r"^FLOWSTREAM_URL: it is empty"):
        await pipeline.run()
    monkeypatch.setenv("FLOWSTREAM_URL", "rabbitmq-stream://me:sec/ret@host")
    with pytest.raises(ConfigurationError, match=r'^FLOWSTREAM_URL: percent-encode "/"'):
        await pipeline.run()
    with pytest.raises(ConfigurationError, match="url= and environment= exclude each other"):
        await pipeline.run(url="rabbitmq-stream://host", environment=Environment())


@pytest.mark.anyio
async def test_a_broker_that_is_away_is_reported_with_what_the_run_did_then():
    pipeline = Pipeline("p", StreamProducer("s"))

    @pipeline.processor()
    async def handle(message: Message[bytes]) -> None: ...

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionFailed, match="no broker at") as caught:
            await pipeline.run(url=f"rabbitmq-stream://127.0.0.1:{port}")
    assert caught.value.__notes__ == ["pipeline 'p': connect", "pipeline 'p': StreamProducer.open"]


class OffsetsOnly:
    async def query_offset(self, reference: str, stream: str) -> int | None:
        return None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("rabbitmq-stream://host", r"expected an Environment that is open, got .* str \("),
        (OffsetsOnly(), "OffsetsOnly has no stream_exists, create_stream, stream_stats"),
    ],
)
async def test_what_lacks_methods_of_an_environment_is_refused(environment, expected):
    pipeline = Pipeline("p", StreamProducer("s"))

    @pipeline.processor()
    async def handle(message: Message[bytes]) -> None: ...

    with pytest.raises(ConfigurationError, match=rf"^environment: {expected}"):
        await pipeline.run(environment=environment)
