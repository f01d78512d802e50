"""`flowstream run --log-level info`: the records of a run, from its version to its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from flowstream import __version__
from tests.brokers.running import Broker
from tests.cli.command import Started, flowstream, wait_until
from tests.cli.modules import SLOW, handled, numbered, write_module

INFO = ("--log-level", "info")
COUNT = 500


@pytest.mark.every_broker
def test_a_run_tells_its_story(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    target = write_module(tmp_path, stream_name, handler=SLOW)
    sent = flowstream("publish", stream_name, "-", "--create", url=broker.url,
                      stdin=numbered(COUNT))  # fmt: skip
    assert sent.code == 0, sent.err
    line = ("run", target, "--create", *INFO, "--log-format", "json")
    with Started(*line, url=broker.url, cwd=tmp_path) as run:
        first = [run.line('"logger"')]
        wait_until(lambda: len(handled(tmp_path)) == COUNT - COUNT // 100)
        run.signal(signal.SIGTERM)
        result = run.end()
    assert result.code == 0, result.err
    records = [json.loads(each) for each in (*first, *result.err.splitlines())]
    told = [each["message"] for each in records]

    def has(*parts: str) -> None:
        assert any(all(part in text for part in parts) for text in told), (parts, told)

    has(f"flowstream {__version__} runs '{stream_name}' of shop: Python ")
    embedded = broker.name == "embedded"
    has(
        f"environment 'flowstream {stream_name}' is connected to ",
        f":{broker.port}: ",
        "the embedded broker" if embedded else f"RabbitMQ {broker.name}",
    )
    has(f"pipeline '{stream_name}' starts (flowstream {__version__}): StreamProducer of ")
    has(f"{stream_name} begins at first: nothing stored under reference {stream_name}")
    has(f"pipeline '{stream_name}' is running")
    has(f"'{stream_name}': asked to stop, by SIGTERM")
    has(f"'{stream_name}' drains, stopped by SIGTERM: ", "25 s at most")
    has("drain: finish batches took ")
    has(f"drain: committed and verified {stream_name}@{COUNT - 1:,} (")
    has(f"'{stream_name}' has ended (stopped by SIGTERM) after ", f"{COUNT:,} received")
    assert len(records) < 40
    (start,) = (each for each in records if "begins at first" in each["message"])
    fields = {"pipeline": stream_name, "stream": stream_name, "reference": stream_name}
    assert start.items() >= {**fields, "offset": 0}.items()

    again = flowstream("run", target, *INFO, "--until-idle", "0.1", url=broker.url, cwd=tmp_path)
    resumes = f"{stream_name} resumes at {COUNT:,}: stored offset {COUNT - 1:,} of reference "
    assert resumes + stream_name in again.err
    assert "asked to stop, by --until-idle (nothing arrived for 0.1 s)" in again.err
    assert "no offset is new, so nothing is committed" in again.err
    flowstream("streams", "delete", f"{stream_name}.dead", "-y", "--if-exists", url=broker.url)


BLOCKING = """
import time
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("shop", IterableProducer([b"a", b"b"]))

@pipeline.processor
async def handle(message: Message[bytes]) -> None:
    if message.data == b"b":
        time.sleep(2.5)
"""


def test_a_handler_that_blocks_the_loop_is_named_at_every_level(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BLOCKING)
    result = flowstream("run", "shop", cwd=tmp_path)
    assert result.code == 0, result.err
    assert re.search(r"the event loop has been blocked for [12]\.", result.err)
    assert "by the handler of 'processor'" in result.err
    assert "in handle\n    time.sleep(2.5)" in result.err


CONFIGURED = """
import logging.config
from flowstream import Drop, IterableProducer, Message, Pipeline

logging.config.dictConfig({
    "version": 1,
    "formatters": {"mine": {"format": "MINE %(levelname)s %(message)s"}},
    "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
    "root": {"handlers": ["mine"]},
})
pipeline = Pipeline("shop", IterableProducer([b"a"]), on_failure=Drop())

@pipeline.processor
async def handle(message: Message[bytes]) -> None:
    raise ValueError("no tea")
"""


def test_failures_are_logged_if_the_module_disables_all_loggers(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CONFIGURED)
    result = flowstream("run", "shop", cwd=tmp_path)
    assert result.err.count("MINE WARNING pipeline 'shop': process failed in 'handle'") == 1


def test_the_page_is_named_as_who_paused(tmp_path: Path) -> None:
    module = BLOCKING.replace('[b"a", b"b"]', "iter(int, 1)")
    (tmp_path / "shop.py").write_text(module)
    line = ("run", "shop", "--http", "127.0.0.1:0", "--http-control", *INFO)
    with Started(*line, cwd=tmp_path) as run:
        page = run.line("live page on ").split("live page on ")[1].split("/,")[0]
        run.line("is running")
        for action in ("pause", "resume"):
            body = json.dumps({"pipeline": "shop", "action": action}).encode()
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(f"{page}/api/control", body, headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
            run.line(f"pipeline 'shop': {action}d, by the live page")
        run.signal(signal.SIGINT)
        assert run.end().code == 0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.slow
def test_a_broker_is_killed_and_started_again(tmp_path: Path) -> None:
    """The page says it at once, /readyz follows, and the log has a record for either."""
    target = write_module(tmp_path, "orders")
    serve = ("broker", "--port", str(port := free_port()), "--data", str(tmp_path / "data"))
    url = f"rabbitmq-stream://guest:guest@localhost:{port}"
    with ExitStack() as stack:
        broker = stack.enter_context(Started(*serve, cwd=tmp_path))
        broker.line("broker listening on")
        line = ("run", target, "--create", "--http", "127.0.0.1:0", "--log-format", "json", *INFO)
        run = stack.enter_context(Started(*line, url=url, cwd=tmp_path))
        page = re.search(r"http://[\d.:]+", run.line("live page on"))
        assert page is not None
        run.line("is running")
        wait_until(lambda: get(f"{page[0]}/readyz")[0] == 200)
        broker.process.kill()
        killed = time.monotonic()
        wait_until(lambda: json.loads(get(f"{page[0]}/api/snapshot")[1])["losses"])
        assert time.monotonic() - killed < 5
        wait_until(lambda: get(f"{page[0]}/readyz")[0] == 503)
        assert time.monotonic() - killed < 10
        assert "the consumer of 'orders'" in get(f"{page[0]}/readyz")[1]
        stack.enter_context(Started(*serve, cwd=tmp_path))
        wait_until(lambda: get(f"{page[0]}/readyz")[0] == 200)
        records = [run.line("again after")]
        run.signal(signal.SIGTERM)
        result = run.end()
        assert result.code == 0, result.err
        records += result.err.splitlines()
    told = [json.loads(each) for each in records if json.loads(each)["level"] == "warning"]
    (back,) = told
    assert back["message"].startswith("environment 'flowstream orders' is connected to its broker")


def test_what_configures_a_pipeline_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BLOCKING.replace("2.5", "0"))
    variables = {
        "FLOWSTREAM_PIPELINES__SHOP__MAX_IN_FLIGHT": "7",
        "FLOWSTREAM_PIPELINES__SHOP__RATE_LIMIT": "5000",
    }
    result = flowstream("run", "shop", *INFO, cwd=tmp_path, env=variables)
    assert result.code == 0, result.err
    assert "pipeline 'shop': configured beside its declaration: " in result.err
    assert "max_in_flight by FLOWSTREAM_PIPELINES__SHOP__MAX_IN_FLIGHT" in result.err
    assert "at most 7 messages in flight; limited to 5,000 messages every 1 s" in result.err
