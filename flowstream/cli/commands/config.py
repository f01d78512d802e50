"""`flowstream config`: every setting, with its value and origin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from flowstream.cli.configuration.defaults import setting_of
from flowstream.cli.configuration.models import plain
from flowstream.cli.configuration.settings import (
    DEFAULT,
    Origin,
    keys,
    secrets,
    settings,
    without_password,
)
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import print_json
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.group import loaded


def config(context: typer.Context, line: list[str] | None, json: bool) -> None:
    rows = list(_rows(_flags(context, line) if line else {}))
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["setting", "value", "origin"], empty="")


def _rows(flags: dict[str, tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    loaded = settings()
    for key in keys():
        value, origin = getattr(loaded.settings, key), loaded.origins.get(key, DEFAULT)
        if key in flags:
            name, value = flags[key]
            origin = Origin("flag", name)
        yield _row(key, value, origin)
    for key in sorted(key for key in loaded.origins if "." in key):
        _, _, rest = key.partition(".")
        name, _, option = rest.rpartition(".")
        yield _row(key, getattr(loaded.settings.pipelines[name], option), loaded.origins[key])


def _row(key: str, value: Any, origin: Any) -> dict[str, Any]:
    return {
        "setting": key,
        "value": shown(key, value),
        "from": origin.place,
        "name": origin.name or None,
        "file": None if origin.file is None else str(origin.file),
        "origin": str(origin),
    }


def shown(key: str, value: Any) -> Any:
    """The value with its secrets masked."""
    value = plain(value)
    return value if value is None or key not in secrets() else without_password(key, value)


def _flags(context: typer.Context, line: list[str]) -> dict[str, tuple[str, Any]]:
    """The settings in a command line, each as (flag, value). It is parsed and not run."""
    assert context.parent is not None
    command: Any = context.parent.command
    while (commands := getattr(command, "commands", None)) is not None:
        if not line or line[0] not in commands:
            reason = f"{line[0]!r} is not a command" if line else "the command is not complete"
            raise CommandError(f"{reason}; the commands are {', '.join(commands)}", ExitCode.USAGE)
        command, line = loaded(commands[line[0]]), line[1:]
    parsed = command.make_context(command.name, list(line), parent=context.parent)
    return {
        key: (option.opts[0], parsed.params[option.name])
        for option in command.params
        if (key := setting_of(option)) is not None
        and parsed.get_parameter_source(option.name).name == "COMMANDLINE"
    }
