"""Where a value is read, which place goes before which, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from flowstream.cli.configuration import overrides
from flowstream.cli.configuration.models import Settings, pipeline_overrides
from flowstream.cli.configuration.settings import load
from flowstream.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with an empty environment."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("FLOWSTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pyproject(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def test_nothing_is_set(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.settings == Settings()
    assert loaded.origins == {}
    assert loaded.given("log_level") is None


def test_the_environment_goes_before_dotenv_and_that_before_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyproject(folder, '[tool.flowstream]\nhttp = ":1"\nlog_level = "INFO"\nlog_format = "json"\n')
    (folder / ".env").write_text("FLOWSTREAM_HTTP=:2\nFLOWSTREAM_LOG_FORMAT=logfmt\nOTHER=x\n")
    monkeypatch.setenv("FLOWSTREAM_HTTP", ":3")
    loaded = load(folder)
    assert [loaded.given(key) for key in ("http", "log_format", "log_level")] == [
        ":3",
        "logfmt",
        "info",
    ]
    assert [str(loaded.origins[key]) for key in ("http", "log_format", "log_level")] == [
        "FLOWSTREAM_HTTP",
        ".env: FLOWSTREAM_LOG_FORMAT",
        "pyproject.toml: [tool.flowstream] log_level",
    ]


def test_files_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('\ufeff[tool.flowstream]\nhttp = ":1"\n', "utf-8")
    (folder / ".env").write_text("\ufeffFLOWSTREAM_LOG_FORMAT=json\n", "utf-8")
    loaded = load(folder)
    assert (loaded.given("http"), loaded.given("log_format")) == (":1", "json")


def test_options_of_a_pipeline_that_is_not_there_are_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of a file may be for others, unless their name is nearly that of one that is there."""
    pyproject(
        folder,
        "[tool.flowstream.pipelines.order]\ncommit_every = 1\n"
        "[tool.flowstream.pipelines.audit]\ncommit_every = 1\n",
    )
    (folder / ".env").write_text("FLOWSTREAM_PIPELINES__EU_ORDERS__COMMIT_EVERY=2\n")
    monkeypatch.setenv("FLOWSTREAM_PIPELINES__PAYMENTS__COMMIT_EVERY", "3")
    loaded = load(folder)
    monkeypatch.setattr(overrides, "settings", lambda: loaded)
    assert list(overrides.unused(["orders", "eu.orders"])) == [
        "pyproject.toml: [tool.flowstream.pipelines.order] commit_every has no effect: "
        "no pipeline here is named 'order'; pipelines here: orders, eu.orders",
        "FLOWSTREAM_PIPELINES__PAYMENTS__COMMIT_EVERY has no effect: no pipeline here is named "
        "'payments'; pipelines here: orders, eu.orders",
    ]


def test_the_nearest_pyproject_upwards_is_read(folder: Path) -> None:
    pyproject(folder, '[tool.flowstream]\nhttp = ":1"\n')
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    assert load(inner).given("http") == ":1"
    pyproject(inner.parent, "[tool.other]\nx = 1\n")
    assert load(inner).given("http") is None


REFUSED = [
    ("env", "FLOWSTREAM_LOGLEVEL=info", "FLOWSTREAM_LOGLEVEL: there is no such setting; "
     "did you mean FLOWSTREAM_LOG_LEVEL?"),
    ("env", "FLOWSTREAM_LOG_LEVEL=loud", "FLOWSTREAM_LOG_LEVEL=loud: expected \"debug\", \"info\""),
    ("env", "FLOWSTREAM_URL=http://me:secret@host", "FLOWSTREAM_URL: the scheme must be"),
    ("env", "FLOWSTREAM_URL=rabbitmq-stream://me:sec/ret@host",
     'FLOWSTREAM_URL: percent-encode "/" (%2F) in the password'),
    ("env", "FLOWSTREAM_URL=", "FLOWSTREAM_URL: it is empty; expected an address such as"),
    (".env", "FLOWSTREAM_MANAGEMENT=http://me:sec#ret@host",
     '.env: FLOWSTREAM_MANAGEMENT: percent-encode "#" (%23) in the password'),
    ("env", "FLOWSTREAM_XYZZY=1", "FLOWSTREAM_XYZZY: there is no such setting; "
     "known settings: url,"),
    ("env", "FLOWSTREAM_URL__HOST=secret", "FLOWSTREAM_URL__HOST: there is no such setting"),
    (".env", "FLOWSTREAM_HEARTBEAT__X=5", "FLOWSTREAM_HEARTBEAT__X: there is no such setting"),
    ("toml", "[tool.flowstream]\nheartbeat = true",
     "heartbeat=True: expected a whole number from 0"),
    ("toml", "[tool.flowstream.pipelines.a]\nrate_limit = false",
     "rate_limit=False: expected a number from 1e-06"),
    ("env", "FLOWSTREAM_PIPELINES={", "environment: error parsing value for field"),
    ("env", "FLOWSTREAM_PIPELINES__A__MAX_FLIGHT=1",
     "did you mean FLOWSTREAM_PIPELINES__A__MAX_IN_FLIGHT?"),
    (".env", "FLOWSTREAM_HTPT=:1", ".env: FLOWSTREAM_HTPT: there is no such setting; "
     "did you mean FLOWSTREAM_HTTP?"),
    (".env", "FLOWSTREAM_HEARTBEAT=-1", ".env: FLOWSTREAM_HEARTBEAT=-1: expected a whole number"),
    ("env", "FLOWSTREAM_CONNECT_TIMEOUT=inf", "FLOWSTREAM_CONNECT_TIMEOUT=inf: expected a num"),
    ("env", "FLOWSTREAM_UNTIL_IDLE=nan", "FLOWSTREAM_UNTIL_IDLE=nan: expected a"),
    ("env", "FLOWSTREAM_UNTIL_IDLE=1e300", "FLOWSTREAM_UNTIL_IDLE=1e300: expected a number"),
    (".env", "FLOWSTREAM_PIPELINES__A__RATE_LIMIT=inf",
     ".env: FLOWSTREAM_PIPELINES__A__RATE_LIMIT=inf: expected a number from 1e-06"),
    ("toml", "[tool.flowstream.pipelines.a]\ndrain_timeout = inf",
     "[tool.flowstream.pipelines.a] drain_timeout=inf: expected a number of seconds"),
    ("toml", "[tool.flowstream]\nrequest_timeout = nan",
     "[tool.flowstream] request_timeout=nan: expected a number of seconds"),
    ("toml", "[tool.flowstream]\nurls = 1",
     "pyproject.toml: [tool.flowstream] urls: there is no such setting; "
     "did you mean [tool.flowstream] url?"),
    ("toml", "[tool.flowstream]\ntune_gc = 3", "[tool.flowstream] tune_gc=3: expected True"),
    ("env", "FLOWSTREAM_PIPELINES=3", "FLOWSTREAM_PIPELINES: a table of pipelines by name is"),
    ("toml", "[tool.flowstream]\npipelines = 3", "a table of pipelines by name is expected"),
    ("toml", "[tool.flowstream.pipelines]\na = 3",
     "a table of options is expected: max_in_flight,"),
    ("toml", "[tool.flowstream.pipelines.'a.b']\ndrain_timeot = 3",
     "[tool.flowstream.pipelines.a.b] drain_timeout?"),
    ("toml", "[tool.flowstream.url]\na = 1", "[tool.flowstream.url] a: there is no such setting"),
    ("toml", "[tool]\nflowstream = 3", "tool.flowstream must be a table"),
    ("toml", "tool = 3", "tool.flowstream must be a table"),
    ("toml", "[tool", "pyproject.toml cannot be read: "),
]  # fmt: skip


@pytest.mark.parametrize(("place", "text", "message"), REFUSED, ids=[r[1] for r in REFUSED])
def test_what_cannot_be_is_refused_with_place_and_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, text: str, message: str
) -> None:
    if place == "env":
        monkeypatch.setenv(*text.split("=", 1))
    elif place == ".env":
        (folder / ".env").write_text(text)
    else:
        pyproject(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_5552_TCP_ADDR", "WEB_SERVICE_PORT_HTTP"],
)
def test_what_kubernetes_sets_for_a_service_of_that_name_is_none_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"FLOWSTREAM_{name}", "tcp://10.0.0.1:5552")
    assert load(folder).origins == {}


def test_secrets_are_not_in_reprs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTREAM_URL", "rabbitmq-stream://me:secret@host")
    monkeypatch.setenv("FLOWSTREAM_TLS_KEY_PASSWORD", "secret")
    assert "secret" not in repr(load(folder))


def test_options_of_a_pipeline_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject(
        folder,
        '[tool.flowstream.pipelines."orders.eu"]\nmax_in_flight = 50\ndrain_timeout = 3\n'
        "[tool.flowstream.pipelines.other]\nmax_in_flight = 7\n",
    )
    monkeypatch.setenv("FLOWSTREAM_PIPELINES__ORDERS_EU__MAX_IN_FLIGHT", "60")
    loaded = load(folder)
    found = loaded.overrides("orders.eu")
    assert {name: value for name, (value, _) in found.items()} == {
        "max_in_flight": 60,
        "drain_timeout": 3.0,
    }
    assert str(found["max_in_flight"][1]) == "FLOWSTREAM_PIPELINES__ORDERS_EU__MAX_IN_FLIGHT"
    assert loaded.overrides("third") == {}


@pytest.mark.parametrize("model", [Settings, pipeline_overrides()])
def test_every_setting_is_documented(model: type[BaseModel]) -> None:
    assert all(field.description for field in model.model_fields.values())
