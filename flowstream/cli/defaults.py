"""Gives options their values from the settings, where the command line says nothing.

An option belongs to a setting where its environment variable does: `FLOWSTREAM_HTTP` is `http`.
The settings are read when the first such option is parsed: help and completion never read them.
"""

from __future__ import annotations

from typing import Any

PREFIX = "FLOWSTREAM_"


class Defaults(dict[str, Any]):
    """What the parser asks for the defaults of one command, looked up late: option -> its setting,
    and whether it may be repeated."""

    def get(self, name: str, default: Any = None) -> Any:
        key = super().get(name)
        if key is None:
            return default
        from flowstream.cli.settings import settings

        setting, multiple = key
        value = settings().given(setting)
        if value is None:
            return default
        return [value] if multiple else value


def defaults(command: Any) -> dict[str, Any]:
    """The defaults of a command, or of all commands of a group by name."""
    commands = getattr(command, "commands", None)
    if commands is not None:
        return {name: defaults(child) for name, child in commands.items()}
    return Defaults(
        (option.name, (key, getattr(option, "multiple", False)))
        for option in command.params
        if (key := setting_of(option)) is not None
    )


def setting_of(option: Any) -> str | None:
    """The key of the settings that an option belongs to."""
    variable = option.envvar
    if isinstance(variable, str) and variable.startswith(PREFIX):
        return variable[len(PREFIX) :].lower()
    return None
