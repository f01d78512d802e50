"""`flowstream config`, and settings as commands take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowstream.cli.configuration.defaults import setting_of
from flowstream.cli.configuration.models import Settings
from tests.brokers.running import Broker
from tests.cli.command import Terminal, flowstream
from tests.cli.modules import numbered, write_module
from tests.cli.rows import TABLE, Bad, Row

ROWS = {
    ("config",): Row(
        "", r"log_level +warning +default", Bad("rnu", 2, "is not a command"),
        drawn=TABLE, document='"setting": "log_level"',
        alone=True,
    ),
}  # fmt: skip


def rows(result: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    return {row["setting"]: row for row in result}


def test_every_value_and_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flowstream]\nurl = "rabbitmq-stream://me:secret@host"\nlog_level = "info"\n'
        "[tool.flowstream.pipelines.orders]\ndrain_timeout = 5\n"
    )
    (tmp_path / ".env").write_text("FLOWSTREAM_TLS_KEY_PASSWORD=secret\n")
    line = ("config", "run", "shop", "--http", ":9464", "--no-tune-gc", "--json")
    result = flowstream(*line, cwd=tmp_path, env={"FLOWSTREAM_LOG_FORMAT": "logfmt"})
    assert result.code == 0, result.err
    assert "secret" not in result.out
    found = rows(result.json)
    assert {*Settings.model_fields} - {"pipelines"} | {"pipelines.orders.drain_timeout"} == {*found}
    wanted = {
        "url": ("rabbitmq-stream://me:***@host", "pyproject.toml: [tool.flowstream] url"),
        "tls_key_password": ("***", ".env: FLOWSTREAM_TLS_KEY_PASSWORD"),
        "log_format": ("logfmt", "FLOWSTREAM_LOG_FORMAT"),
        "http": ("127.0.0.1:9464", "--http"),
        "tune_gc": (False, "--tune-gc"),
        "sasl": ("PLAIN", "default"),
        "pipelines.orders.drain_timeout": (
            5.0,
            "pyproject.toml: [tool.flowstream.pipelines.orders] drain_timeout",
        ),
    }
    for key, (value, origin) in wanted.items():
        assert (found[key]["value"], found[key]["origin"]) == (value, origin)
    assert found["http"]["from"] == "flag"


def test_as_a_table_in_a_pipe_and_on_a_terminal(tmp_path: Path) -> None:
    text = flowstream("config", cwd=tmp_path, env={"FLOWSTREAM_HTTP": ":1"}).out
    assert text.splitlines()[0].split() == ["setting", "value", "origin"]
    assert ["http", ":1", "FLOWSTREAM_HTTP"] in [line.split() for line in text.splitlines()]
    with Terminal("config", cwd=tmp_path) as terminal:
        assert terminal.end() == 0
    assert "log_level" in terminal.screen
    assert "─" in terminal.screen


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (("config",), "FLOWSTREAM_HTPT: there is no such setting; did you mean FLOWSTREAM_HTTP?"),
        (("run", "shop"), "did you mean FLOWSTREAM_HTTP?"),
        (("offsets", "get", "a", "b"), "did you mean FLOWSTREAM_HTTP?"),
    ],
)
def test_an_unknown_key_is_refused(tmp_path: Path, line: tuple[str, ...], text: str) -> None:
    result = flowstream(*line, cwd=tmp_path, env={"FLOWSTREAM_HTPT": ":1"})
    assert result.code == 3
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert text in result.err


def test_help_and_commands_without_settings_do_not_mind(tmp_path: Path) -> None:
    bad = {"FLOWSTREAM_HTPT": ":1"}
    for line in (("run", "--help"), ("exit-codes",), ("--version",)):
        assert flowstream(*line, cwd=tmp_path, env=bad).code == 0


@pytest.mark.parametrize(
    ("words", "text"), [(("rnu",), "is not a command"), (("streams",), "complete")]
)
def test_a_line_that_is_no_command(tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    result = flowstream("config", *words, cwd=tmp_path)
    assert result.code == 2
    assert text in result.err


def test_commands_take_the_address_from_the_file(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FLOWSTREAM_URL=rabbitmq-stream://localhost:1\n")
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.flowstream]\nurl = "{broker.url}"\nuntil_idle = 0.2\ncreate = true\n'
        f'log_format = "json"\n[tool.flowstream.pipelines."{stream_name}"]\nmax_in_flight = 100\n'
    )
    refused = flowstream("streams", "create", stream_name, cwd=tmp_path)
    assert (refused.code, "localhost:1" in refused.err) == (4, True)
    (tmp_path / ".env").unlink()
    sent = flowstream("publish", stream_name, "-", "--create", cwd=tmp_path, stdin=numbered(5))
    assert sent.code == 0, sent.err
    run = flowstream("run", write_module(tmp_path, stream_name), "--json", cwd=tmp_path)
    assert run.code == 0, run.err
    assert run.json[0]["handled"] == 5
    messages = [json.loads(line) for line in run.err.splitlines()]
    assert {"level", "logger", "message", "time"} <= {*messages[0]}
    flowstream("streams", "delete", stream_name, f"{stream_name}.dead", "-y", cwd=tmp_path)


def test_a_flag_goes_before_everything(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FLOWSTREAM_URL=rabbitmq-stream://localhost:1\n")
    line = ("streams", "stats", "x", "--url", "rabbitmq-stream://localhost:2")
    assert "localhost:2" in flowstream(*line, cwd=tmp_path).err


def test_tls_options_want_a_tls_address(tmp_path: Path) -> None:
    line = ("run", write_module(tmp_path, "x"), "--tls-ca", "ca.pem")
    result = flowstream(*line, url="rabbitmq-stream://localhost:1", cwd=tmp_path)
    assert result.code == 3
    assert "rabbitmq-stream+tls://" in result.err


def test_every_option_with_a_variable_is_a_setting() -> None:
    from flowstream.cli.app import command_tree

    def options(command: object) -> list[object]:
        children = getattr(command, "commands", {})
        own = [] if children else command.params  # type: ignore[attr-defined]
        return [*own, *(option for child in children.values() for option in options(child))]

    found = {setting_of(option) for option in options(command_tree())} - {None}
    assert {"url", "http", "log_level"} <= found
    assert found <= {*Settings.model_fields}
