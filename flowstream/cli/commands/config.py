"""`flowstream config`: every setting, its value, and where that came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flowstream.cli.configuration.defaults import setting_of
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import print_json, print_rows
from flowstream.cli.parser.options import COMMAND_LINE, Json, examples


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        context_settings={"ignore_unknown_options": True},
        epilog=examples(
            "flowstream config",
            "flowstream config --json",
            "flowstream config run pipelines.orders --http :9464",
        ),
    )(config)


def config(
    context: typer.Context,
    line: Annotated[
        list[str] | None,
        typer.Argument(metavar=COMMAND_LINE, help="Show what this command line would run with."),
    ] = None,
    json: Json = False,
) -> None:
    """Show every setting, and where its value came from.

    A flag goes before the environment (FLOWSTREAM_...), that before .env, that before the table
    tool.flowstream in pyproject.toml, and that before the default. Secrets are masked.
    """
    rows = list(_rows(_flags(context, line) if line else {}))
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["setting", "value", "origin"], empty="")


def _rows(flags: dict[str, tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    from flowstream.cli.configuration.settings import DEFAULT, Origin, keys, settings

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
    """The value without its secrets: an address without its password, a password not at all."""
    from flowstream.cli.configuration.settings import plain, secrets, without_password

    value = plain(value)
    return value if value is None or key not in secrets() else without_password(key, value)


def _flags(context: typer.Context, line: list[str]) -> dict[str, tuple[str, Any]]:
    """By setting, what a command line gives as (flag, value); it is parsed and not run."""
    assert context.parent is not None
    command: Any = context.parent.command
    while (commands := getattr(command, "commands", None)) is not None:
        if not line or line[0] not in commands:
            said = f"{line[0]!r} is no command" if line else "the command is not complete"
            raise CommandError(f"{said}; there are {', '.join(commands)}", ExitCode.USAGE)
        command, line = commands[line[0]], line[1:]
    parsed = command.make_context(command.name, list(line), parent=context.parent)
    return {
        key: (option.opts[0], parsed.params[option.name])
        for option in command.params
        if (key := setting_of(option)) is not None
        and parsed.get_parameter_source(option.name).name == "COMMANDLINE"
    }
