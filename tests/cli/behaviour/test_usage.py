"""A mistake in the line is told like every other error: one line, one form, where to find help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowstream.cli.parser.command import arguments_last
from flowstream.cli.parser.group import first_sentence
from tests.cli.command import Terminal, flowstream
from tests.cli.modules import write_module
from tests.cli.rows import rows
from tests.cli.tree import Words, commands, leaves

LEAVES = [*leaves()]
IDS = [" ".join(words) for words, _ in LEAVES]
CONNECTED = [(words, it) for words, it in LEAVES if any(p.name == "url" for p in it.params)]
HTTP = "Invalid value for '--http' (env var: 'FLOWSTREAM_HTTP'):"
LOCAL = "rabbitmq-stream://guest:guest@127.0.0.1:9"


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_a_mistake_is_one_line_with_the_way_to_help(words: Words) -> None:
    result = flowstream(*words, "--zzz")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    if words != ("config",):  # which takes it for a part of a command line
        said = f"({' '.join(('flowstream', *words))} --help shows how)"
        assert line == f"error: No such option: --zzz {said}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rnu", "No such command 'rnu'. Did you mean 'run'? (flowstream --help shows how)"),
        ("offsets sett", "No such command 'sett'. Did you mean 'set'"),
        ("offsets set a", "Missing argument 'stream' (flowstream offsets set --help shows how)"),
        ("offsets set a b x", "Invalid value for 'offset': 'x' is not a whole number ("),
        ("offsets set a b -1", "Invalid value for 'offset': '-1': 0 or more is expected ("),
        ("offsets set a b -1.5", "Invalid value for 'offset': '-1.5' is not a whole number ("),
        ("offsets set a b -x", "No such option: -x"),
        ("offsets get a b -1", "Got unexpected extra argument"),
        ("dead-letters show a -1 --json", "Invalid value for 'offset'"),
        ("peek a -n -1", "Invalid value for '-n'"),
        ("peek a -n ten", "Invalid value for '-n' / '--count': 'ten' is not a whole number ("),
        ("broker --port 65536", "Invalid value for '--port': '65536': 65535 or less is expected ("),
        ("publish a b --rate fast", "Invalid value for '--rate': 'fast' is not a number ("),
        ("publish a b --rate 0", "Invalid value for '--rate': '0': 0.01 or more is expected ("),
        ("publish a b --rate nan", "Invalid value for '--rate': 'nan': 0.01 or more is expected"),
        ("publish a b --format x", "Invalid value for '--format': 'x' is not one of 'ndjson', "),
        ("peek a -n", "Option '-n' requires an argument"),
        (
            "run shop --http abc",
            "'abc' after --http is neither an address (HOST:PORT or :PORT) nor a module",
        ),
        (
            "run shop --http nowhere",
            "'nowhere' after --http is neither an address (HOST:PORT or :PORT) nor",
        ),
        (
            "run --http abc shop",
            "'abc' after --http is neither an address (HOST:PORT or :PORT) nor a module",
        ),
        ("run shop --http=abc", f"{HTTP} 'abc' is not an address; write HOST:PORT or :PORT"),
        ("run shop --http :99999", f"{HTTP} ':99999' is not an address; write HOST:PORT or :PORT"),
        ("run shop --http a/b:80", f"{HTTP} 'a/b:80' is not an address; write HOST:PORT or :PORT"),
        (
            "run shop --until-idle soon",
            "'soon' after --until-idle is neither a number of seconds nor a module with a",
        ),
        ("top --http abc --once", f"{HTTP} 'abc' is not an address; write HOST:PORT or :PORT"),
    ],
)
def test_every_kind_of_mistake(tmp_path: Path, line: str, said: str) -> None:
    write_module(tmp_path, "s")
    result = flowstream(*line.split(), cwd=tmp_path, url=LOCAL)
    assert (result.code, result.out) == (2, "")
    (told,) = result.err.splitlines()
    assert told.startswith(f"error: {said}")


def test_errors_have_one_colour() -> None:
    for line in ("rnu", "graph gone", "streams stats"):
        with Terminal(*line.split()) as terminal:
            assert terminal.end() != 0
        assert terminal.raw.startswith(b"\x1b[1;31merror: \x1b[0m"), terminal.raw
        with Terminal(*line.split(), env={"NO_COLOR": "1"}) as terminal:
            terminal.end()
        assert b"31m" not in terminal.raw


def test_a_group_alone_shows_its_help() -> None:
    for words in ((), ("offsets",)):
        result = flowstream(*words)
        assert result.code == 2
        assert "Usage: " in result.out + result.err
        assert "error" not in result.err
        with Terminal(*words) as terminal:
            assert terminal.end() == 2
        assert "Usage: " in terminal.screen
        assert "error:" not in terminal.screen


# -- options of a login


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=IDS)
def test_what_connects_has_the_options_of_a_login(words: Words, command: Any) -> None:
    options = {name for option in command.params for name in option.opts}
    login = {"--tls-ca", "--tls-certificate", "--tls-key", "--sasl"}
    assert login <= options if "--url" in options else not login & options


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words, _ in CONNECTED], ids=" ".join)
def test_the_options_of_a_login_reach_the_connection(tmp_path: Path, words: Words) -> None:
    write_module(tmp_path, "s")
    (tmp_path / "some.ndjson").write_text("{}\n")
    line = (*words, *str(rows()[words].waiting).split())
    plain = flowstream(*line, "--tls-ca", "ca.pem", cwd=tmp_path, url=LOCAL)
    assert plain.code == 3, plain
    assert "tls_ca is set, and " in plain.err
    assert "is not an address for TLS" in plain.err
    secured = LOCAL.replace("://", "+tls://")
    missing = flowstream(*line, "--tls-ca", "ca.pem", cwd=tmp_path, url=secured)
    assert missing.code in {3, 24}, missing
    assert "ca.pem" in missing.err + missing.out


# -- what it is made of


class Option:
    def __init__(self, name: str, *opts: str, is_flag: bool = False, kind: str = "option") -> None:
        self.name, self.opts, self.is_flag, self.param_type_name = name, opts, is_flag, kind
        self.secondary_opts: list[str] = []


PARAMS = [
    Option("offset", "offset", kind="argument"),
    Option("url", "--url"),
    Option("count", "-n", "--count"),
    Option("yes", "--yes", "-y", is_flag=True),
]


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("x s 1 --yes", "x s 1 --yes"),
        ("x s -1", "-- x s -1"),
        ("x s -1 --yes", "--yes -- x s -1"),
        ("x -1 --url u s -y", "--url u -y -- x -1 s"),
        ("-n -1 x", "-n -1 x"),
        ("--url=-1 x", "--url=-1 x"),
        ("x -n -1 -1", "-n -1 -- x -1"),
        ("x -- -1", "-- x -1"),
        ("x - -1", "-- x - -1"),
        ("x -1 --url", "--url -- x -1"),
        ("x -y5", "x -y5"),
    ],
)
def test_a_negative_number_is_an_argument(line: str, parsed: str) -> None:
    assert arguments_last(line.split(), PARAMS) == parsed.split()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, None),
        ("Show\nit.", "Show it."),
        ("Show it. All of it.\n\nAnd more.", "Show it."),
        ("Show it (RabbitMQ 3.13 or later).\n\nMore.", "Show it (RabbitMQ 3.13 or later)."),
        ("Measure 1.5 of it", "Measure 1.5 of it"),
    ],
)
def test_the_first_sentence(text: str | None, sentence: str | None) -> None:
    assert first_sentence(text) == sentence
