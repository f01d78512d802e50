"""No password is in any text: of every command, in errors, logs, reprs, documents and figures.

Random passwords go everywhere one can be given, encoded or not. They are of letters that make no
words, so that four of them in a row are nowhere but in the password.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import io
import logging
import os
import pkgutil
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import flowstream as package
from flowstream.cli.app import main
from flowstream.cli.configuration import settings as configured
from flowstream.cli.output import console
from flowstream.client import Environment, PlainCredentials, StreamUrl, Tls, Token, UrlParts
from flowstream.client.connecting.url import PORTS
from flowstream.errors import ConfigurationError
from flowstream.testing import broker_in_thread
from tests.cli.command import Result, Started, flowstream
from tests.cli.modules import write_module
from tests.cli.tree import leaves

LETTERS = "QXZJVKqxzjvk"
NOWHERE = "127.0.0.1:9"

core = st.text(LETTERS, min_size=4, max_size=8)
signs = st.text(
    "/?#@[]%:,;&=!$'\"\\^`{|}~ \n\t*+\u00e9\uff20\uff0f\uff1a\uff03", min_size=1, max_size=3
)
passwords = st.builds("".join, st.tuples(core, signs, core))

TEMPLATES = (
    "rabbitmq-stream://app:{secret}@{host}/%2f",
    "rabbitmq-stream://app:{secret}@{host}",
    "rabbitmq-stream+tls://app:{secret}@{host},localhost:9/v",
    "rabbitmq-stream://{secret}:{secret}@{host}/",
    "rabbitmq-stream://me@work:{secret}@{host}",
    "rabbitmq-stream://app:{secret}",
    "rabbitmq-stream://app:{secret}@",
    "rabbitmq-stream://app:{secret}@{host}:port/",
    "rabbitmq-stream://app:{secret}@{host}/a/b",
    "rabbitmq-stream://app:{secret}@{host}?heartbeat=1",
    "rabbitmq-stream://app:{secret}@[::1",
    "rabbitmq-stream:/app:{secret}@{host}",
    "amqp://app:{secret}@{host}",
    "app:{secret}@{host}",
    "http://app:{secret}@{host}",
    "https://app:{secret}@{host}:port",
    "http://app:{secret}@{host}/x y",
    "{secret}",
)


def parts_of(secret: str) -> set[str]:
    """Every four characters in a row that are nowhere else, as they are and as they are sent."""
    forms = {secret, quote(secret, safe="")}
    grams = {form[i : i + 4] for form in forms for i in range(len(form) - 3)}
    found = {gram for gram in grams if sum(sign in LETTERS for sign in gram) >= 3}
    for text in (secret, f"app:{secret}", f"\0app\0{secret}", f"guest:{secret}"):
        coded = base64.b64encode(text.encode(errors="replace")).decode()
        found |= {coded[i : i + 12] for i in range(8, len(coded) - 12)}
    return found


def assert_hidden(secret: str, *texts: str) -> None:
    shown = [part for part in parts_of(secret) for text in texts if part in text]
    assert not shown, f"{shown} of {secret!r} in {texts}"


class Everything(logging.Handler):
    """All log records of this process, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"


@contextlib.contextmanager
def logged() -> Iterator[Everything]:
    """Every record from DEBUG on, whatever a command does with the handlers."""
    handler = Everything()
    log = logging.getLogger("flowstream")
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def forget() -> None:
    """The settings are those of a process, and a test has several."""
    configured.settings.cache_clear()
    configured._read.cache_clear()


def run(*arguments: str, variables: dict[str, str] | None = None) -> str:
    """All a command says and logs, in this process."""
    kept = {name: value for name, value in os.environ.items() if name[:11] != "FLOWSTREAM_"}
    said = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    cli_level = logging.getLogger("flowstream.cli").level
    with (
        logged() as log,
        mock.patch.dict(os.environ, {**kept, **(variables or {})}, clear=True),
        mock.patch.object(sys, "argv", ["flowstream", *arguments]),
        mock.patch.object(console, "_notes", []),
        mock.patch.object(console, "_tracebacks", []),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        forget()
        try:
            main()
        except SystemExit as end:
            said.write(f"exit {end.code}")
        finally:
            forget()
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.getLogger("flowstream.cli").setLevel(cli_level)
    return said.getvalue() + log.text


def words_for(command: Any) -> list[str]:
    """Arguments that get a command as far as its connection."""
    known = {"targets": "shop", "file": "three.ndjson", "offset": "0", "offsets": "0"}
    options = {"--to": "first", "--host": "192.0.2.1", "--http": "127.0.0.1:9", "--port": "9"}
    line: list[str] = []
    for param in command.params:
        if param.param_type_name == "argument" and param.required:
            line.append(known.get(param.name, "orders"))
        elif param.required:
            line += [param.opts[0], options.get(param.opts[0], "1")]
        else:
            line += [it for it in param.opts if it in {"--yes", "--once", "--connect"}]
            line += [word for it in param.opts if it in options for word in (it, options[it])]
    return line


LEAVES = [(words, command) for words, command in leaves() if words != ("new",)]


def options_of(command: Any) -> set[str]:
    return {name for param in command.params for name in param.opts}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("secrets")
    write_module(folder, "orders")
    (folder / "three.ndjson").write_bytes(b'{"n":1}\n')
    path, here = sys.path[:], Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(here)
    sys.path[:] = path
    sys.modules.pop("shop", None)


def configure_nothing(folder: Path) -> None:
    """What the last example of a property has configured is gone."""
    for name in (".env", "pyproject.toml"):
        (folder / name).write_text("")


lines = st.fixed_dictionaries(
    {
        "leaf": st.sampled_from(LEAVES),
        "template": st.sampled_from(TEMPLATES),
        "encoded": st.booleans(),
        "where": st.sampled_from(["flag", "variable", ".env", "pyproject.toml", "word", "split"]),
        "setting": st.sampled_from(["url", "management", "tls_key_password"]),
        "more": st.sampled_from([(), ("--json",), ("--debug",)]),
    }
)


@pytest.mark.slow
@settings(
    max_examples=settings().max_examples // 5,  # each is a command
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(passwords, lines)
def test_no_command_shows_a_password_wherever_it_was_given(
    folder: Path, secret: str, line: dict[str, Any]
) -> None:
    words, command = line["leaf"]
    host = NOWHERE.partition(":")[0] if ":port" in line["template"] else NOWHERE
    given_as = quote(secret, safe="") if line["encoded"] else secret
    if "{secret}@" not in line["template"]:
        given_as = given_as.replace("@", "")  # what follows it would be a host, and asked for
    value = line["template"].format(secret=given_as, host=host)
    setting, where = line["setting"], line["where"]
    arguments = [*words, *words_for(command)]
    if "--json" in options_of(command) or "--json" not in line["more"]:
        arguments += line["more"]
    if words == ("broker",):
        arguments += ["--user", f"app:{secret}"]
    variables: dict[str, str] = {}
    files = {".env": "", "pyproject.toml": ""}
    flag = "--" + setting.replace("_", "-")
    if where == "flag" and flag in options_of(command):
        arguments += [flag, value]
    elif where == "word" and "://" in value:
        arguments += [value]
    elif where == "split" and "--url" in options_of(command):
        arguments += ["--url", *value.split()]
    elif where == ".env":
        files[".env"] = f"FLOWSTREAM_{setting.upper()}='{value}'\n"
    elif where == "pyproject.toml":
        written = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        files["pyproject.toml"] = f'[tool.flowstream]\n{setting} = "{written}"\n'
    else:
        variables[f"FLOWSTREAM_{setting.upper()}"] = value
    if "--url" in options_of(command) and not {"--url", "FLOWSTREAM_URL"} & {
        *arguments,
        *variables,
    }:
        variables["FLOWSTREAM_URL"] = f"rabbitmq-stream://app:{quote(secret, safe='')}@{NOWHERE}"
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    assert_hidden(secret, run(*arguments, variables=variables))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@given(passwords, st.sampled_from(TEMPLATES), st.booleans())
def test_no_value_or_error_of_the_client_shows_a_password(
    secret: str, template: str, encoded: bool
) -> None:
    value = template.format(secret=quote(secret, safe="") if encoded else secret, host="host")
    made: list[Any] = [Tls(key_password=secret), PlainCredentials("app", secret), Token(secret, 1)]
    error: BaseException | None = None
    try:
        read = StreamUrl.parse(value)
    except ConfigurationError as raised:
        error = raised
    else:
        if "app:{secret}@" in template:  # else it is what was given as the host or the user
            made += [read, UrlParts.split(value, schemes=PORTS, example="")]
            made.append(PlainCredentials(read.user, read.password))
    for url in (value.encode(), [value.encode()], [value, 7]):
        with pytest.raises(ConfigurationError) as caught:
            Environment(url)  # type: ignore[arg-type]
        made += chain(caught.value)
    made += chain(error)
    assert_hidden(secret, *(f"{it} {it!r}" for it in made))


def test_no_dataclass_shows_an_address_or_a_secret_in_its_repr() -> None:
    hidden = {"url", "management", "password", "key_password", "token", "users"}
    shown = set()
    for module in pkgutil.walk_packages(package.__path__, "flowstream."):
        if module.name.endswith("__main__") or ".pytest_plugin" in module.name:
            continue
        for made in vars(importlib.import_module(module.name)).values():
            if isinstance(made, type) and dataclasses.is_dataclass(made):
                shown |= {
                    f"{made.__module__}.{made.__qualname__}.{field.name}"
                    for field in dataclasses.fields(made)
                    if field.repr and field.name in hidden and "__repr__" in vars(made)
                }
    assert not shown


@pytest.mark.parametrize("words", [("lag", "--pipeline"), ("dashboards", "export")], ids=" ".join)
def test_an_address_in_another_place_is_not_quoted(folder: Path, words: tuple[str, ...]) -> None:
    configure_nothing(folder)
    said = run(*words, "http://app:QxZjVKqX@127.0.0.1:9")
    assert "not an address" in said
    assert "exit 2" in said
    assert_hidden("QxZjVKqX", said)


SECRET = "QxZj/?#@[]%vKqX %41é@ZJVk"


@pytest.mark.slow
def test_nothing_shows_the_password_of_a_login_that_works(folder: Path) -> None:
    """Commands on a broker that they get into: what they say, log and count, and what it logs."""
    configure_nothing(folder)
    with logged() as log, broker_in_thread(users={"app": SECRET}) as broker:
        variables = {"FLOWSTREAM_URL": broker.url}
        said = [
            run(*line.split(), variables=variables)
            for line in (
                "doctor",
                "config",
                "config --json",
                "streams create orders",
                "streams create orders.dead",
                "publish orders three.ndjson",
                "run shop --until-idle 0.1 --http 127.0.0.1:0 --log-level debug --log-format json",
                "run shop --until-idle 0 --json --log-level debug",
                "streams stats orders --json",
                "lag orders orders",
                "streams delete gone --yes --debug",
            )
        ]
        wrong = {"FLOWSTREAM_URL": broker.url.replace("app:", "app:x")}
        said.append(run("doctor", "--json", variables=wrong))
        said.append(run("run", "shop", "--debug", variables=wrong))
    assert "login" in said[0]
    assert "1 message handled" in said[6]
    assert re.search("refused|authentic", said[-1])
    assert_hidden(SECRET, *said, log.text)


DSN = """
from flowstream import *

DSN = "postgresql://app:QxZjVKqXJZ@127.0.0.1:9/shop"
pipeline = Pipeline("shop", StreamProducer("orders"), on_failure=DeadLetter("orders.dead"))

@pipeline.processor
async def check(message: Message[dict]) -> None:
    if message.data["n"] == 1:
        raise ConnectionError(f"{DSN} refused " + "x" * 4_080)  # cut in its traceback
    if message.data["n"] == 2:
        message.fail("x" * 2_030 + f" {DSN} refused " + "y" * 3_000)
    message.drop(f"not in {DSN}")
"""


@pytest.mark.slow
def test_nothing_shows_an_address_of_a_handler(tmp_path: Path) -> None:
    """It is in its exceptions and reasons: what a run says, logs, counts and writes to a stream."""
    (tmp_path / "shop.py").write_text(DSN)
    (tmp_path / "three.ndjson").write_bytes(b'{"n":1}\n{"n":2}\n{"n":3}\n')
    with broker_in_thread() as broker:

        def command(*line: str) -> Result:
            return flowstream(*line, url=broker.url, cwd=tmp_path)

        command("publish", "orders", "three.ndjson", "--create")
        with Started("run", "shop", "--http", "127.0.0.1:0", "--log-level", "debug",
                     url=broker.url, cwd=tmp_path) as run:  # fmt: skip
            home = run.line("live page on").split()[3].rstrip(",")
            logged = run.line("dead-lettered into") + run.line("committed orders@2")
            pages = ("metrics", "api/snapshot", "api/dead-letters?pipeline=shop",
                     "api/dead-letters?pipeline=shop&offset=0")  # fmt: skip
            said = [logged]
            for page in pages:
                with urllib.request.urlopen(home + page, timeout=10) as answer:
                    said.append(answer.read().decode())
            run.signal(signal.SIGINT)
            said.append(str(run.end()))
        lines = ("show orders.dead 0", "show orders.dead 1 --json", "list orders.dead --json")
        said += [str(command("dead-letters", *line.split())) for line in lines]
        said.append(str(command("peek", "orders.dead", "--json")))
    assert "postgresql://app:***" in "".join(said)
    assert_hidden("QxZjVKqXJZ", *said)
