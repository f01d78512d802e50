"""Every mistake is one clear line on standard error, with its own exit code and no traceback."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.brokers.running import Broker
from tests.cli.command import Result, flowstream
from tests.cli.modules import numbered

PIPELINE = """
from flowstream import Batch, Halt, Message, Pipeline, StreamProducer
{name} = Pipeline("{name}", StreamProducer("no-such-stream"))
"""
PROCESSOR = """
@{name}.processor
async def handle(message: Message[{payload}]) -> None:
    pass
"""
BATCHER = """
@{name}.batcher("load")
async def load{number}(batch: Batch[bytes]) -> None:
    pass
"""


def pipeline(name: str = "pipeline", payload: str = "bytes", batchers: int = 0) -> str:
    text = PIPELINE.format(name=name) + PROCESSOR.format(name=name, payload=payload)
    return text + "".join(BATCHER.format(name=name, number=i) for i in range(batchers))


ONE = pipeline()
TWO = pipeline("eu") + pipeline("us")

DECLARATIONS = [
    pytest.param("", "gone", 10, ["no module 'gone'", "run in the directory"], id="no module"),
    pytest.param("", "pkg.gone", 10, ["no module 'pkg.gone'"], id="no module in a package"),
    pytest.param("", "shop.py", 10, ["is a path", "write shop"], id="a path"),
    pytest.param("import no_such_thing", "shop", 11, ["no_such_thing", "shop.py, line 1"],
                 id="a module that imports what is missing"),
    pytest.param("x = 1\ny = 1 / 0", "shop", 11, ["ZeroDivisionError", "shop.py, line 2"],
                 id="a module that raises"),
    pytest.param("def f(:", "shop", 11, ["SyntaxError", "shop.py, line 1"], id="a syntax error"),
    pytest.param("x = 1", "shop", 12, ["declares no pipeline", "assign one"], id="no pipeline"),
    pytest.param(ONE, "shop:other", 12, ["no pipeline 'other'", "it has pipeline"],
                 id="no pipeline of that name"),
    pytest.param(TWO, "shop:asia", 12, ["no pipeline 'asia'; it has eu, us"],
                 id="several pipelines, none of that name"),
    pytest.param(pipeline(payload="complex"), "shop", 14, ["handle", "complex"],
                 id="an unsupported annotation"),
    pytest.param(pipeline(batchers=2), "shop", 15, ["two batchers named 'load'"],
                 id="two batchers of one name"),
    pytest.param(PIPELINE.format(name="pipeline"), "shop", 3, ["no processor"], id="no processor"),
    pytest.param(ONE.replace('stream"', 'stream", credit=0'), "shop", 3, ["credit"],
                 id="an option that cannot work"),
    ("import sys; sys.exit(0)", "shop", 11,
     ["shop cannot be imported: SystemExit: 0 (shop.py, line 1); ", 'if __name__ == "__main__":']),
    ("import asyncio; asyncio.get_running_loop()", "shop", 11,
     ["shop cannot be imported: RuntimeError: no running event loop (shop.py, line 1); open ",
      "in the pipeline's lifespan="]),
    ("import sys; sys.exit()", "shop", 11, ["shop cannot be imported: SystemExit (shop.py"]),
    ("import sys; sys.exit(None)", "shop", 11, ["SystemExit (shop.py", "__main__"]),
    ("import sys; sys.exit('usage: shop [-h]')", "shop", 11, ["SystemExit: usage: shop [-h]"]),
    ("exit(3)", "shop", 11, ["SystemExit: 3", "__main__"]),
    ("open('/no/such/file')", "shop", 11, ["FileNotFoundError", "/no/such/file"]),
    ("raise BrokenPipeError", "shop", 11, ["BrokenPipeError (shop.py, line 1)"]),
    ("raise MemoryError", "shop", 11, ["MemoryError (shop.py, line 1)"]),
    ("x = 1\nraise KeyboardInterrupt", "shop", 130,
     ["shop: interrupted while it was imported (shop.py, line 2)"]),
    ("raise BaseExceptionGroup('g', [KeyboardInterrupt()])", "shop", 130, ["shop: interrupted"]),
    ("import asyncio; raise asyncio.CancelledError", "shop", 11, ["CancelledError (shop.py"]),
    ("raise BaseExceptionGroup('g', [GeneratorExit()])", "shop", 11, ["GeneratorExit (shop.py"]),
]  # fmt: skip


def check(result: Result, code: int, texts: list[str]) -> None:
    assert result.code == code, result.err
    assert result.out == ""
    *notes, error = result.err.splitlines()
    # what a run says of its broker, and any command while one takes a second or two to refuse it
    assert all(line.startswith(("broker: ", "waiting for the broker at ")) for line in notes), notes
    assert error.startswith("error: ")
    for text in texts:
        assert text in error


def write(folder: Path, module: str) -> None:
    (folder / "shop.py").write_text(module)
    (folder / "pkg").mkdir()
    (folder / "pkg" / "__init__.py").write_text("")


@pytest.mark.parametrize(("module", "target", "code", "texts"), DECLARATIONS)
def test_declarations(
    tmp_path: Path, module: str, target: str, code: int, texts: list[str]
) -> None:
    write(tmp_path, module)
    check(flowstream("run", target, url="rabbitmq-stream://x:1", cwd=tmp_path), code, texts)


def test_debug_shows_the_traceback_before_the_line(tmp_path: Path) -> None:
    write(tmp_path, "y = 1 / 0")
    result = flowstream("run", "shop", "--debug", cwd=tmp_path)
    assert result.code == 11
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("error: shop cannot be imported")


def other(broker: Broker, *, user: str = "guest:guest", port: int | None = None,
          vhost: str = "%2f") -> str:  # fmt: skip
    parts = urlsplit(broker.url)
    return f"rabbitmq-stream://{user}@{parts.hostname}:{port or parts.port}/{vhost}"


def named(command: tuple[str, ...]) -> str:
    return " ".join(command[: 2 if command[0] in GROUPS else 1])


GROUPS = {"streams", "offsets", "dead-letters", "super-streams"}

COMMANDS = [
    ("run", "shop", "--until-idle"),
    ("publish", "no-such-stream", "-"),
    ("streams", "stats", "no-such-stream"),
    ("offsets", "get", "me", "no-such-stream"),
    ("peek", "no-such-stream"),
    ("lag", "no-such-stream", "me"),
]

MORE = [
    ("offsets", "set", "me", "no-such-stream", "5"),
    ("offsets", "reset", "me", "no-such-stream", "--to", "first", "--yes"),
    ("tail", "no-such-stream"),
    ("dead-letters", "list", "no-such-stream"),
    ("dead-letters", "show", "no-such-stream", "0"),
    ("dead-letters", "replay", "no-such-stream"),
    ("dead-letters", "purge", "no-such-stream", "--yes"),
    ("super-streams", "list-partitions", "no-such-stream"),
    ("super-streams", "route", "no-such-stream", "key"),
]


@pytest.mark.slow
@pytest.mark.every_broker
@pytest.mark.parametrize("command", COMMANDS[:1], ids=named)
def test_every_broker_refuses_a_run(
    broker: Broker, tmp_path: Path, command: tuple[str, ...]
) -> None:
    refused(broker, tmp_path, command)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS[1:], ids=named)
def test_the_broker_refuses(broker: Broker, tmp_path: Path, command: tuple[str, ...]) -> None:
    refused(broker, tmp_path, command)


def refused(broker: Broker, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Wrong password, unknown virtual host, missing stream."""
    write(tmp_path, ONE)

    def run(url: str) -> Result:
        return flowstream(*command, url=url, cwd=tmp_path, stdin=numbered(1))

    check(run(other(broker, user="guest:wrong")), 5, ["guest"])
    check(run(other(broker, vhost="no-such-vhost")), 16, ["no-such-vhost"])
    check(run(broker.url), 6, ["no-such-stream", "does not exist"])


@pytest.mark.parametrize("command", MORE, ids=named)
def test_a_stream_is_missing(broker: Broker, command: tuple[str, ...]) -> None:
    """Of commands that reach the broker like those above, which are refused for other reasons."""
    check(flowstream(*command, url=broker.url), 6, ["no-such-stream", "does not exist"])


UNKNOWN_BATCHER = """
from flowstream import Batch, DeadLetter, Halt, Message, Pipeline, StreamProducer
pipeline = Pipeline("{stream}", StreamProducer("{stream}"), on_failure={policy})

@pipeline.processor
async def handle(message: Message[bytes]) -> None:
    message.to("nope")

@pipeline.batcher("load")
async def load(batch: Batch[bytes]) -> None:
    pass
"""


@pytest.mark.every_broker
def test_routing_to_an_unknown_batcher_fails_the_message_not_the_run(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    dead = f"{stream_name}.dead"
    said = "there is no batcher named 'nope'; there are 'load'"
    flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=numbered(3))
    for policy, code in (("Halt()", 7), (f'DeadLetter("{dead}")', 0)):
        module = UNKNOWN_BATCHER.format(stream=stream_name, policy=policy)
        (tmp_path / "shop.py").write_text(module)
        line = ("run", "shop", "--until-idle", "0.2")
        result = flowstream(*line, url=broker.url, cwd=tmp_path)
        assert result.code == code, result.err
        assert "Traceback" not in result.err
        if code:
            assert said in result.err.splitlines()[-1]
    letters = flowstream("dead-letters", "list", dead, "--json", url=broker.url).json
    assert [letter["reason"] for letter in letters] == [said] * 3
    flowstream("streams", "delete", stream_name, dead, "--yes", "--if-exists", url=broker.url)


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_nobody_answers(tmp_path: Path, command: tuple[str, ...]) -> None:
    write(tmp_path, ONE)
    url = "rabbitmq-stream://guest:secret@localhost:1/%2f"
    result = flowstream(*command, url=url, cwd=tmp_path, stdin=numbered(1))
    check(result, 4, ["localhost:1"])
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://localhost", "the scheme must be rabbitmq-stream://"),
        ("rabbitmq-stream://", "the host is missing"),
        ("rabbitmq-stream://me:secret@host:port/", "the port after the host must be a number"),
    ],
)
def test_an_address_that_is_none(tmp_path: Path, url: str, text: str) -> None:
    write(tmp_path, ONE)
    result = flowstream("run", "shop", url=url, cwd=tmp_path)
    check(result, 3, [text])
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--http", "localhost:99999"), 2, "is not an address"),
        (("--http", "192.0.2.1:80"), 2, "cannot listen on 192.0.2.1:80"),
        (("--until-idle", "-1"), 2, "--until-idle"),
        (("--feed", "gone.csv"), 20, "cannot read gone.csv"),
        (("--feed", "gone.parquet"), 20, "is not known from its extension"),
        (("shop",), 2, "given twice"),
    ],
)
def test_options(
    broker: Broker, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    write(tmp_path, ONE)
    result = flowstream("run", "shop", *arguments, url=broker.url, cwd=tmp_path)
    assert result.code == code, result.err
    assert text in result.err
    assert "Traceback" not in result.err
