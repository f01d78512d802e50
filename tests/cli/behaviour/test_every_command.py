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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.running import Broker
from tests.cli.command import Result, Started, Terminal
from tests.cli.modules import write_module
from tests.cli.rows import Row, rows
from tests.cli.tree import Words, leaves
from tests.cli.world import World

pytestmark = pytest.mark.timeout(300)

ALONE = {words: row for words, row in rows().items() if row.alone}
BROKER = {words: row for words, row in rows().items() if not row.alone}

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
    assert rows().keys() == {words for words, _ in leaves()}
    assert {words for words, row in rows().items() if row.document} == HAVE_JSON
    assert all(row.bad.code for row in rows().values())


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
