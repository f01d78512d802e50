"""Every setting is written once: its flag, variable, model and page follow from its field."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream import client
from flowstream.cli.app import command_tree
from flowstream.cli.configuration.defaults import setting_of
from flowstream.cli.configuration.models import OPTIONS, Settings
from flowstream.cli.configuration.options import (
    CONNECTION,
    DEFAULT_URL,
    command_line_options,
    flag,
    variable,
)
from flowstream.client import Environment, Tls
from flowstream.schema import options_of


def flags() -> dict[str, Any]:
    """The flags of all commands that are settings, by key; of `run` where it has one, too."""
    found: dict[str, Any] = {}

    def walk(command: Any) -> None:
        for child in getattr(command, "commands", {}).values():
            walk(child)
        for option in command.params:
            if (key := setting_of(option)) is not None and not option.multiple:
                found.setdefault(key, option)

    walk(command_tree())
    return found


def test_the_default_address_is_that_of_the_client() -> None:
    assert DEFAULT_URL == client.DEFAULT_URL


def test_flags_are_those_of_their_settings() -> None:
    for key, option in flags().items():
        setting = OPTIONS[key]
        assert option.opts == [flag(key)]
        assert option.envvar == variable(key)
        assert option.help.lower().startswith(setting.text.lower()), key


def test_every_setting_of_the_command_line_has_a_flag() -> None:
    without = {"tls_key_password", "tls_server_name", "tls_verify"}
    assert {*flags()} == {key for key, _ in command_line_options()} - without


@pytest.mark.parametrize("key", CONNECTION)
def test_connection_settings_are_options_of_the_environment(key: str) -> None:
    assert OPTIONS[key] is options_of(Environment)[key]


def test_tls_settings_are_options_of_tls() -> None:
    for name, option in options_of(Tls).items():
        assert OPTIONS[f"tls_{name}"] is option


def test_defaults_are_those_of_the_options() -> None:
    model = Settings()
    for key, option in OPTIONS.items():
        assert getattr(model, key) == option.default
