"""pydantic turns the text of settings into values, and the options' rules check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from flowstream.cli.configuration.models import (
    OPTIONS,
    Settings,
    pipeline_options,
    pipeline_overrides,
    plain,
)
from flowstream.cli.configuration.options import LogLevel
from flowstream.schema import Bounds

RIGHT: list[tuple[str, Any, Any]] = [
    ("heartbeat", "0", 0),
    ("connect_timeout", "0.5", 0.5),
    ("tls_verify", "false", False),
    ("tls_ca", "ca.pem", Path("ca.pem")),
    ("log_level", "DEBUG", LogLevel.DEBUG),
    ("sasl", "external", "EXTERNAL"),
    ("management", "http://me:secret@host", SecretStr("http://me:secret@host")),
]
WRONG: list[tuple[str, Any]] = [
    ("heartbeat", "1.5"),
    ("heartbeat", True),
    ("heartbeat", "-1"),
    ("frame_max", "100"),
    ("connect_timeout", "0"),
    ("connect_timeout", "nan"),
    ("log_level", "loud"),
    ("tls_server_name", ""),
    ("tls_key_password", "nul\0"),
    ("url", "amqp://host"),
    ("management", "host:15672"),
]


@pytest.mark.parametrize(("key", "text", "value"), RIGHT)
def test_text_becomes_a_value(key: str, text: str, value: Any) -> None:
    assert getattr(Settings.model_validate({key: text}), key) == value


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_the_rule_of_the_option_refuses_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({key: value})


def test_numbers_of_pipelines_have_the_bounds_of_their_options() -> None:
    for key, option in pipeline_options().items():
        rule = option.rule
        assert isinstance(rule, Bounds)
        for wrong in (rule.least - 1, rule.most * 2, float("nan"), True, "many"):
            with pytest.raises(ValidationError):
                pipeline_overrides().model_validate({key: wrong})


def test_a_value_is_written_as_on_the_command_line() -> None:
    assert [plain(it) for it in (SecretStr("s"), Path("a/b"), ("::1", 1), LogLevel.INFO, 5)] == [
        "s", "a/b", "[::1]:1", "info", 5,
    ]  # fmt: skip


def test_secrets_have_no_repr() -> None:
    secret = [key for key, option in OPTIONS.items() if option.rule.secret]
    assert secret == ["url", "management", "tls_key_password"]
    assert "s3cret" not in repr(Settings.model_validate({"tls_key_password": "s3cret"}))
