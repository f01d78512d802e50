"""Dead letters: listed with their reasons, shown whole, replayed exactly once, purged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from flowstream import Environment, Message
from flowstream.cli.commands import dead_letters
from flowstream.client import Compression
from flowstream.connectors.dead_letter import dead_letter
from flowstream.pipeline import Failure
from tests.brokers.running import Broker
from tests.cli.command import Result, Terminal, flowstream
from tests.cli.modules import handled, numbered, write_module
from tests.cli.rows import MISSING, TABLE, Bad, Row

ROWS = {
    ("dead-letters", "list"): Row(
        "{dead}", r"0 +20\S+Z +shop +\S+@1 .+ too late", Bad("no-such-stream", 6, MISSING),
        drawn=TABLE, document='"reason": "too late"',
        waiting="s",
    ),
    ("dead-letters", "show"): Row(
        "{dead} 0", r'reason +too late\s+\{"n":1\}', Bad("{dead} 9", 20, "no dead letter at"),
        document='"reason": "too late"',
        waiting="s 0",
    ),
    ("dead-letters", "replay"): Row(
        "{dead}", r"1 message replayed and confirmed into \S+",
        Bad("{dead} --offset x", 2, "--offset"), document='"messages": 1',
        waiting="s",
    ),
    ("dead-letters", "purge"): Row(
        "{dead} --force", r"\S+ is empty", Bad("{dead} --yes", 2, "1 dead letter"),
        asks=r"Delete every dead letter of \S+",
        waiting="s --yes",
    ),
}  # fmt: skip


COUNT = 300


SEVENS = [7, 107, 207]


class Shop:
    """A pipeline that has run: three of its messages are dead letters."""

    def __init__(self, url: str, stream: str, folder: Path) -> None:
        self.url = url
        self.stream = stream
        self.dead = f"{stream}.dead"
        self.folder = folder
        self.target = write_module(folder, stream)
        flowstream("publish", stream, "-", "--create", url=url, stdin=numbered(COUNT))
        self.run()

    def run(self) -> None:
        line = ("run", self.target, "--until-idle", "0.3")
        result = flowstream(*line, url=self.url, cwd=self.folder)
        assert result.code == 0, result.err

    def letters(self, command: str, *arguments: str) -> Result:
        return flowstream("dead-letters", command, self.dead, *arguments, url=self.url)


@pytest.fixture
def shop(broker: Broker, stream_name: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(broker.url, stream_name, tmp_path)
    yield shop
    flowstream("streams", "delete", shop.stream, shop.dead, "-y", "--if-exists", url=broker.url)


def test_letters_tell_where_they_come_from_and_why(shop: Shop) -> None:
    rows = shop.letters("list", "--json").json
    assert [row["source"] for row in rows] == [f"{shop.stream}@{n}" for n in SEVENS]
    assert {row["reason"] for row in rows} == {"sevens are not wanted"}
    assert shop.letters("list", "--reason", "other", "--json").json == []
    (summary,) = shop.letters("list", "--reasons", "--json").json
    assert (summary["letters"], summary["phase"]) == (3, "process")
    table = shop.letters("list").out.splitlines()
    assert table[0].split()[:3] == ["offset", "time", "pipeline"]
    assert len(table) == 4
    whole = shop.letters("show", "1", "--json").json
    assert whole["message"]["body"] == {"n": 107}
    assert '{"n":107}' in shop.letters("show", "1").out


def test_a_replay_brings_each_letter_back_once(shop: Shop) -> None:
    assert shop.letters("replay", "--dry-run").out == (
        f"3 messages would be replayed into {shop.stream}\n"
    )
    done = shop.letters("replay")
    assert done.out == f"3 messages replayed and confirmed into {shop.stream}\n"
    again = shop.letters("replay")
    assert again.out.startswith("nothing to replay")
    assert shop.letters("list", "--json").json == []
    assert len(shop.letters("list", "--all", "--json").json) == 3
    line = ("peek", shop.stream, "--last", "3", "--bodies")
    assert flowstream(*line, url=shop.url).out == '{"n":7}\n{"n":107}\n{"n":207}\n'


def test_once_the_cause_is_fixed_a_replay_completes_the_work(shop: Shop) -> None:
    module = shop.folder / "shop.py"
    module.write_text(module.read_text().replace("== 7", "== 777"))
    assert len(handled(shop.folder)) == COUNT - 3
    shop.letters("replay")
    shop.run()
    assert len(handled(shop.folder)) == COUNT
    shop.letters("replay")
    shop.run()
    assert len(handled(shop.folder)) == COUNT


@pytest.mark.slow
def test_a_replay_goes_on_a_terminal_too(shop: Shop) -> None:
    with Terminal("dead-letters", "list", shop.dead, url=shop.url) as terminal:
        assert terminal.end() == 0
    assert "sevens are not" in terminal.screen
    with Terminal("dead-letters", "replay", shop.dead, url=shop.url) as terminal:
        assert terminal.end() == 0
    assert "3 messages replayed and confirmed" in terminal.screen
    with Terminal("dead-letters", "purge", shop.dead, url=shop.url) as terminal:
        terminal.expect("Delete every dead letter of")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert f"{shop.dead} is empty" in terminal.screen


@pytest.mark.slow
def test_a_purged_stream_begins_again(shop: Shop) -> None:
    """Its numbers begin at 0 again, and none of the new letters is taken for an old one."""
    shop.letters("replay", "--to", shop.stream)
    shop.letters("purge", "--yes")
    shop.run()
    assert len(shop.letters("list", "--json").json) == 3
    assert shop.letters("replay", "--json").json == [{"stream": shop.stream, "messages": 3}]
    line = ("peek", shop.stream, "--last", "3", "--bodies")
    assert flowstream(*line, url=shop.url).out == '{"n":7}\n{"n":107}\n{"n":207}\n'


def test_where_the_source_is_gone(shop: Shop) -> None:
    flowstream("streams", "delete", shop.stream, "--yes", url=shop.url)
    gone = shop.letters("replay")
    assert (gone.code, gone.out) == (6, "")
    assert shop.stream in gone.err
    assert len(gone.err.splitlines()) == 1
    assert len(shop.letters("list", "--json").json) == 3


@pytest.mark.slow
def test_chosen_letters_are_replayed_whenever_asked(shop: Shop) -> None:
    for _ in range(2):
        chosen = shop.letters("replay", "--offset", "0", "--offset", "2", "--json")
        assert chosen.json == [{"stream": shop.stream, "messages": 2}]
    assert len(shop.letters("list", "--json").json) == 3
    strange = shop.letters("replay", "--offset", "99")
    assert "1 offset given with --offset had no dead letter" in strange.err


@pytest.mark.slow
def test_purge_refuses_to_lose_what_waits(shop: Shop) -> None:
    refused = shop.letters("purge", "--yes")
    assert refused.code == 2
    assert "3 dead letters" in refused.err
    shop.letters("replay", "--to", shop.stream)
    assert "add --yes" in shop.letters("purge").err
    assert shop.letters("purge", "--yes").out == f"{shop.dead} is empty\n"
    assert shop.letters("list", "--all", "--json").json == []


def test_bad_input(broker: Broker, stream_name: str) -> None:
    missing = flowstream("dead-letters", "list", "no-such-stream", url=broker.url)
    assert (missing.code, missing.out) == (6, "")
    flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=b"plain\n")
    strange = flowstream("dead-letters", "list", stream_name, url=broker.url)
    assert strange.code == 0
    assert "1 message of" in strange.err
    nothing = flowstream("dead-letters", "show", stream_name, "0", url=broker.url)
    assert nothing.code == 20
    assert "no dead letter at offset 0" in nothing.err
    wrong = flowstream("dead-letters", "list", stream_name, "--reason", "(", url=broker.url)
    assert wrong.code == 2


LARGEST = 1_048_576 - 9 - 12


@pytest.mark.slow
def test_a_body_that_was_too_large_for_its_letter_is_fetched(
    broker: Broker, stream_name: str
) -> None:
    dead = f"{stream_name}.dead"
    bodies = [b"s" * 10, b"f" * LARGEST, b"h" * 2_000_000]

    def buried(offset: int, raw: bytes) -> bytes:
        message = Message.new(None, raw=raw, stream=stream_name, offset=offset)
        return dead_letter("p", Failure(message, f"reason {offset}"), LARGEST)

    async def fill() -> None:
        letters = [buried(offset, body) for offset, body in enumerate(bodies)]
        letters += [buried(999, bodies[1]), buried(0, bodies[1]), buried(0, bodies[0])]
        async with Environment(broker.url) as environment:
            for name in (stream_name, dead):
                await environment.create_stream(name)
            async with environment.publisher(stream_name) as publisher:
                await publisher.publish_many(bodies[:2])
            async with environment.publisher(
                stream_name, sub_entry_size=1, compression=Compression.GZIP
            ) as publisher:
                await publisher.publish(bodies[2])
            async with environment.publisher(dead) as publisher:
                await publisher.publish_many(letters)

    def letters(*arguments: str) -> Result:
        command, *rest = arguments
        return flowstream("dead-letters", command, dead, *rest, url=broker.url)

    anyio.run(fill)
    assert [row["reason"][:6] for row in letters("list", "--json").json] == ["reason"] * 6
    for offset in (1, 2):
        shown = letters("show", str(offset), "--json").json["message"]
        assert shown["text"].encode() == bodies[offset]
        assert shown["offset"] == offset
    assert bodies[1].decode() in letters("show", "1").out
    gone = letters("show", "3")
    assert gone.code == 0
    assert f"{stream_name}@999 is gone" in gone.out
    assert "is gone" in letters("show", "3", "--json").json["message"]["missing"]
    assert "another message: the stream was deleted and created again" in letters("show", "4").out

    tried = letters("replay", "--dry-run")
    assert tried.code == 32
    assert f"3 messages would be replayed into {stream_name}" in tried.out
    done = letters("replay")
    assert done.code == 32
    assert f"3 messages replayed and confirmed into {stream_name}" in done.out
    assert re.search(r"letter 2 of .*2,000,000 bytes.*1,048,555", done.err)
    assert re.search(r"letter 3 of .* is gone", done.err)
    assert re.search(r"letter 4 of .* is another message", done.err)
    assert "3 dead letters of" in done.err
    assert "--offset 2 --offset 3 --offset 4" in done.err
    peeked = flowstream("peek", stream_name, "--from", "3", "--json", url=broker.url).out
    replayed = [json.loads(line)["text"].encode() for line in peeked.splitlines()]
    assert replayed == [bodies[0], bodies[1], bodies[0]]
    assert letters("replay").code == 0
    assert letters("replay", "--offset", "3", "--offset", "1").code == 32

    flowstream("streams", "delete", stream_name, "--yes", url=broker.url)
    without = letters("show", "1")
    assert without.code == 0
    assert "cannot be read" in without.out
    flowstream("streams", "delete", dead, "--yes", url=broker.url)


def test_a_purge_that_is_interrupted_leaves_a_stream(
    embedded_broker: Broker, stream_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = Environment.delete_stream

    async def interrupted(environment: Environment, stream: str) -> None:
        await delete(environment, stream)
        raise KeyboardInterrupt

    async def purge() -> None:
        async with Environment(embedded_broker.url) as environment:
            await environment.create_stream(stream_name)
            with monkeypatch.context() as patched:
                patched.setattr(Environment, "delete_stream", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    await dead_letters._purge(embedded_broker.url, stream_name, None)
            assert await environment.last_offset(stream_name) is None
            await environment.delete_stream(stream_name)

    anyio.run(purge)
