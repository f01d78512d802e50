"""Both environments have what connectors need: mypy checks the signatures, the test the names."""

from __future__ import annotations

import inspect

import pytest

from flowstream import Message, Pipeline, StreamProducer
from flowstream.client import Environment
from flowstream.connectors import StreamEnvironment
from flowstream.errors import ConfigurationError
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
