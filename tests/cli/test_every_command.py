"""Every command on a terminal, through a pipe, as JSON and with bad input: one row for each.

Those that talk to a broker do it with the embedded one and a real one. That each command has its
row, and that one with `--json` is asked for it, is tested here too: the count stays true for
commands that are added later. What a command does in depth is tested in a file of its own.
"""

from __future__ import annotations

import json
import re
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.running import Broker
from tests.cli.command import Result, Started, Terminal
from tests.cli.modules import write_module
from tests.cli.tree import Words, leaves
from tests.cli.world import World

pytestmark = pytest.mark.timeout(300)

TABLE = "──"


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot do, how it ends, and what is said then."""

    line: str
    code: int
    says: str


@dataclass(frozen=True, slots=True)
class Row:
    """A command's words after its name, and what is to be seen; patterns are regular expressions.

    `drawn` is seen on a terminal, and never in a pipe. `document` is in the JSON of a command that
    has `--json`. A command that `asks` is answered with yes, and told `--yes` where nobody can
    answer. One that is `endless` gets a Ctrl-C when all is seen, on its output ("out") or standard
    error ("err").
    """

    line: str
    shows: str
    bad: Bad
    drawn: str = ""
    document: str = ""
    asks: str = ""
    endless: str = ""
    code: int = 0
    wide: bool = False
    """Whether its table has names that other tests have given, however long they are."""


LIST = Bad("--management ftp://x", 2, "--management: the scheme must be http:// or")
MISSING = '"no-such-stream": the stream does not exist; create it first'

ALONE: dict[Words, Row] = {
    ("new",): Row(
        "orders_{n} --directory {n}", r"wrote \S+/orders_\w+\.py and \S+[\s\S]+flowstream run",
        Bad("my-orders", 2, "cannot be a module's name"),
    ),
    ("broker",): Row(
        "--port 0 --memory", r"broker listening on 127\.0\.0\.1:\d+, in memory",
        Bad("--host 0.0.0.0", 2, "say who may connect with --user"),
        drawn="0 connections, 0 streams", endless="err",
    ),
    ("graph",): Row(
        "shop", r"└─ StreamProducer: stream orders from first",
        Bad("gone", 10, "no module 'gone'"), document='"edges"',
    ),
    ("config",): Row(
        "", r"log_level +warning +default", Bad("rnu", 2, "no command"),
        drawn=TABLE, document='"setting": "log_level"',
    ),
    ("exit-codes",): Row(
        "", r"6 +the stream does not exist", Bad("--jsn", 2, "No such option"),
        drawn=TABLE, document='"meaning": "the stream does not exist, or was deleted while',
    ),
    ("dashboards", "export"): Row(
        "{n}", r"\w+/prometheus/prometheus\.yml[\s\S]+\d files written",
        Bad("shop.py", 2, "cannot write shop.py"), document="flowstream-overview.json",
    ),
}  # fmt: skip

BROKER: dict[Words, Row] = {
    ("run",): Row(  # idle for longer than a frame of the live view stands
        "{module} --until-idle 1.5", r"3 messages handled \(3 ok\)[\s\S]+committed offset 2",
        Bad("shop --until-idle", 6, '"orders": the stream does not exist'),
        drawn=r"in flight +[\d,]+ of 10,000", document='"handled": 3',
    ),
    ("publish",): Row(
        "{stream} three.ndjson", r"3 messages confirmed in \S+",
        Bad("{stream} gone.csv", 20, "cannot read gone.csv"), document='"messages": 3',
    ),
    ("peek",): Row(
        "{stream} -n 2", r'0  20\S+Z  \{"n":0\}\r?\n1  20\S+Z  \{"n":1\}',
        Bad("{stream} --from soon", 2, "is no place in a stream"), document='{"n":0}',
    ),
    ("tail",): Row(
        "{stream} --from first", r'0  20\S+Z  \{"n":0\}',
        Bad("no-such-stream", 6, MISSING), document='{"n":0}', endless="out",
    ),
    ("check",): Row(
        "{module} --connect", r"ok +\S+ +offset +\S+: none is stored; a run begins at first",
        Bad("gone --connect", 24, "no module 'gone'"), drawn=TABLE, document='"check": "read"',
    ),
    ("doctor",): Row(
        "", r"ok +broker +login +PLAIN as guest",
        Bad("no-such-stream", 24, "flowstream streams create no-such-stream"),
        drawn=TABLE, document='"check": "login"',
    ),
    ("top",): Row(
        "--http {monitor}", r"running[\s\S]+lag",
        Bad("--http localhost:9 --once", 4, "no run answers at http://localhost:9/"),
        drawn=r"in flight +[\d,]+ of 10,000", document='"settled":', endless="out",
    ),
    ("lag",): Row(
        "{stream} me", r"\S+ +me +0 +2 +2 ", Bad("no-such-stream", 6, MISSING),
        drawn=TABLE, document='"lag": 2',
    ),
    ("bench",): Row(
        "--messages 500 --seconds 0.1", r"publish to delivery +\d+",
        Bad("--size 7", 2, "--size"), drawn=TABLE, document='"messages_per_s"',
    ),
    ("streams", "create"): Row(
        "{new} --max-age 7d", r"\S+ created", Bad("{stream}", 18, "exists already; --if-missing"),
    ),
    ("streams", "delete"): Row(
        "{stream}", r"\S+ deleted", Bad("no-such-stream --yes", 6, "does not exist; --if-exists"),
        asks=r"Delete \S+ with all messages\?",
    ),
    ("streams", "list"): Row(
        "--management {management}", r"messages +leader", LIST, drawn=TABLE, document='"leader"',
        wide=True,
    ),
    ("streams", "stats"): Row(
        "{stream}", r"\S+ +0 +2 +\S+:\d+ +1", Bad("no-such-stream", 6, MISSING),
        drawn=TABLE, document='"last_offset": 2',
    ),
    ("super-streams", "create"): Row(
        "{new} --partitions 2", r"(\S+) created: \1-0, \1-1",
        Bad("{super}", 18, "exists already; --if-missing"),
    ),
    ("super-streams", "delete"): Row(
        "{super}", r"\S+ deleted", Bad("no-such-stream --yes", 6, "does not exist; --if-exists"),
        asks=r"Delete \S+ with all its partitions and messages\?",
    ),
    ("super-streams", "list"): Row(
        "--management {management}", r"super stream", LIST, drawn=TABLE,
        document='"super_stream"', wide=True,
    ),
    ("super-streams", "list-partitions"): Row(
        "{super}", r"1 +\S+-1 +- +- +\S+:\d+ +1", Bad("no-such-stream", 6, "does not exist"),
        drawn=TABLE, document='"number": 1',
    ),
    ("super-streams", "route"): Row(
        "{super} customer-42", r"customer-42 +\S+-[01] +-",
        Bad("no-such-stream key", 6, "does not exist"), drawn=TABLE, document='"by_hash"',
    ),
    ("offsets", "get"): Row(
        "me {stream}", r"me +\S+ +0 +0 +2 +2", Bad("me no-such-stream", 6, MISSING),
        drawn=TABLE, document='"offset": 0',
    ),
    ("offsets", "set"): Row(
        "me {stream} 1", r"me on \S+: 0 -> 1; it goes on with offset 2",
        Bad("me {stream} -- -1", 2, "greater than or equal to 0"), document='"offset": 1',
    ),
    ("offsets", "forget"): Row(
        "me {stream}", r"me +\S+ +0", Bad("me no-such-stream --yes", 6, MISSING),
        drawn=TABLE, document='"forgotten": true', asks=r"Forget where me goes on\?",
    ),
    ("offsets", "reset"): Row(
        "me {stream} --to first --watch 0", r"\S+ +0 +0 +1 +0[\s\S]+me on \S+: 0 -> -1; it goes on",
        Bad("me {stream} --to 99 --watch 0 --yes", 20, "holds 0 to 2"),
        drawn=TABLE, document='"stored": true', asks=r"Store this for me\?",
    ),
    ("dead-letters", "list"): Row(
        "{dead}", r"0 +20\S+Z +shop +\S+@1 .+ too late", Bad("no-such-stream", 6, MISSING),
        drawn=TABLE, document='"reason": "too late"',
    ),
    ("dead-letters", "show"): Row(
        "{dead} 0", r'reason +too late\s+\{"n":1\}', Bad("{dead} 9", 20, "no dead letter at"),
        document='"reason": "too late"',
    ),
    ("dead-letters", "replay"): Row(
        "{dead}", r"1 message replayed and confirmed into \S+",
        Bad("{dead} --offset x", 2, "--offset"), document='"messages": 1',
    ),
    ("dead-letters", "purge"): Row(
        "{dead} --force", r"\S+ is empty", Bad("{dead} --yes", 2, "1 dead letter"),
        asks=r"Delete every dead letter of \S+",
    ),
}  # fmt: skip

NO_LIST = r"no management API at \S+ [\s\S]+ flowstream streams stats NAME"

WITHOUT_API = {"shows": NO_LIST, "drawn": "\x1b\\[1;31merror", "code": 4, "document": ""}

EMBEDDED: dict[Words, dict[str, Any]] = {
    ("streams", "list"): WITHOUT_API,
    ("super-streams", "list"): WITHOUT_API,
}
"""What is different on the embedded broker, which has no management API."""

HAVE_JSON = {
    words for words, command in leaves() if any("--json" in it.opts for it in command.params)
}


def test_every_command_has_its_row() -> None:
    assert ALONE.keys() | BROKER.keys() == {words for words, _ in leaves()}
    rows = {**ALONE, **BROKER}
    assert {words for words, row in rows.items() if row.document} == HAVE_JSON
    assert all(row.bad.code for row in rows.values())


# -- how a row is run


class Place:
    """Where commands run: the broker's address if they talk to one, and what a line names."""

    def __init__(self, folder: Path, world: World | None = None) -> None:
        self.folder = folder
        self.url = None if world is None else world.broker.url
        self._world = world

    def fill(self, line: str) -> list[str]:
        if self._world is not None:
            return self._world.fill(line)
        return line.format(n=f"n{uuid.uuid4().hex[:6]}").split()

    def terminal(self, words: Words, row: Row) -> Terminal:
        wide = {"COLUMNS": "400"} if row.wide else None
        return Terminal(*words, *self.fill(row.line), url=self.url, cwd=self.folder, env=wide)

    def pipe(self, words: Words, line: str, *options: str) -> Started:
        return Started(*words, *self.fill(line), *options, url=self.url, cwd=self.folder)


def on_a_terminal(terminal: Terminal, row: Row) -> None:
    if row.asks:
        terminal.expect(row.asks)
        terminal.type("y\n")
    if row.endless:
        terminal.expect(row.shows)
        terminal.expect(row.drawn)
        terminal.type("\x03")
    assert terminal.end() == row.code, terminal.screen
    assert re.search(row.shows, terminal.screen), terminal.screen
    assert re.search(row.drawn, terminal.screen + terminal.raw.decode()), terminal.screen
    assert "Traceback" not in terminal.screen


def through_a_pipe(piped: Started, row: Row, pattern: str) -> Result:
    seen = ""
    if row.endless:
        seen = piped.line(pattern, out=row.endless == "out")
        piped.signal(signal.SIGINT)
    end = piped.end()
    result = replace(end, out=seen + end.out)
    assert result.code == row.code, result.err
    assert "\x1b" not in result.out + result.err
    assert "Traceback" not in result.err
    return result


def yes(row: Row) -> list[str]:
    return ["--yes"] if row.asks else []


def both_ways(place: Place, words: Words, row: Row) -> None:
    """Both at the same time: each is a process that starts slowly."""
    with place.terminal(words, row) as terminal, place.pipe(words, row.line, *yes(row)) as piped:
        on_a_terminal(terminal, row)
        result = through_a_pipe(piped, row, row.shows)
    assert re.search(row.shows, result.out + result.err), result
    assert not (row.drawn and re.search(row.drawn, result.out + result.err)), result


def json_and_bad_input(place: Place, words: Words, row: Row) -> None:
    with place.pipe(words, row.bad.line) as bad:
        if row.document:
            with place.pipe(words, row.line, "--json", *yes(row)) as piped:
                result = through_a_pipe(piped, row, row.document)
            assert documents(result.out)
            assert re.search(row.document, result.out), result
        refused = bad.end()
    assert refused.code == row.bad.code, refused.err
    assert re.search(row.bad.says, refused.out + refused.err), refused
    assert "Traceback" not in refused.err


def documents(text: str) -> list[Any]:
    """A JSON document, or one in each line."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def row_of(words: Words, broker: str) -> Row:
    return replace(BROKER[words], **(EMBEDDED.get(words, {}) if broker == "embedded" else {}))


def named(words: Words) -> str:
    return " ".join(words)


# -- without a broker


@pytest.fixture
def alone(tmp_path: Path) -> Place:
    write_module(tmp_path, "orders")
    return Place(tmp_path)


@pytest.mark.parametrize("words", ALONE, ids=named)
def test_on_a_terminal_and_through_a_pipe(alone: Place, words: Words) -> None:
    both_ways(alone, words, ALONE[words])


@pytest.mark.parametrize("words", ALONE, ids=named)
def test_json_and_bad_input(alone: Place, words: Words) -> None:
    json_and_bad_input(alone, words, ALONE[words])


# -- with a broker


def place_at(broker: Broker, folder: Path) -> Iterator[Place]:
    write_module(folder, "orders")
    world = World(broker, folder)
    yield Place(folder, world)
    world.end()


@pytest.fixture(scope="module")
def place(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from place_at(broker, tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="module")
def embedded(embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from place_at(embedded_broker, tmp_path_factory.mktemp("embedded"))


@pytest.mark.slow
@pytest.mark.parametrize("words", BROKER, ids=named)
def test_with_a_broker_on_a_terminal_and_through_a_pipe(
    place: Place, broker: Broker, words: Words
) -> None:
    both_ways(place, words, row_of(words, broker.name))


@pytest.mark.slow
@pytest.mark.parametrize("words", BROKER, ids=named)
def test_with_a_broker_json_and_bad_input(embedded: Place, words: Words) -> None:
    """What is different on other brokers is seen above, and in the tests of each command."""
    json_and_bad_input(embedded, words, row_of(words, "embedded"))
