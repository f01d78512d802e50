"""The fixtures, as a user's tests have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PYTEST = (sys.executable, "-W", "error", "-m", "pytest")
CONFTEST = 'pytest_plugins = ["flowstream.testing.pytest_plugin"]\n'
TESTS = """
import os
import anyio
from flowstream import Environment, Message, Pipeline, StreamProducer

pipeline = Pipeline("orders", StreamProducer("orders"))

@pipeline.processor
async def handle(message: Message[bytes]) -> None: ...

def test_url(flowstream_broker, flowstream_url):
    assert os.environ["FLOWSTREAM_URL"] == flowstream_url == flowstream_broker.url

def test_a_run(flowstream_url):
    async def main():
        async with Environment(flowstream_url) as environment:
            await environment.create_stream("orders")
            async with environment.publisher("orders") as publisher:
                await publisher.publish(b"1")
        async with pipeline.start() as running:
            return await running.wait_idle(0.1)

    assert anyio.run(main).settled == {"ok": 1}

def test_afterwards():
    assert "FLOWSTREAM_URL" not in os.environ
"""


@pytest.mark.slow
def test_the_fixtures(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("FLOWSTREAM_URL", raising=False)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [*PYTEST, "-p", "no:hypothesispytest", "-p", "no:xdist", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
