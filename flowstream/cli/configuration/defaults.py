"""Gives options their values from the settings, where the command line says nothing.

An option belongs to a setting where its environment variable does: `FLOWSTREAM_HTTP` is `http`.
The settings are read when the first such option is parsed: help and completion never read them.

An address that is given nowhere is that of the embedded broker of this folder, where one runs.
"""

from __future__ import annotations

from typing import Any

from flowstream.cli.parser.options import DEFAULT_URL

PREFIX = "FLOWSTREAM_"


class Defaults(dict[str, Any]):
    """What the parser asks for the defaults of one command, looked up late: option -> its setting,
    whether it may be repeated, and whether it is an address that is else on this machine."""

    def get(self, name: str, default: Any = None) -> Any:
        key = super().get(name)
        if key is None:
            return default
        from flowstream.cli.configuration.settings import settings
        from flowstream.cli.connection.nearby import nearby

        setting, multiple, local = key
        value = settings().given(setting)
        if value is None and local and (found := nearby()) is not None:
            return found.url
        if value is None:
            return default
        return [value] if multiple else value


def defaults(command: Any) -> dict[str, Any]:
    """The defaults of a command, or of all commands of a group by name."""
    commands = getattr(command, "commands", None)
    if commands is not None:
        return {name: defaults(child) for name, child in commands.items()}
    return Defaults(
        (option.name, (key, getattr(option, "multiple", False), option.default == DEFAULT_URL))
        for option in command.params
        if (key := setting_of(option)) is not None
    )


def setting_of(option: Any) -> str | None:
    """The key of the settings that an option belongs to."""
    variable = option.envvar
    if isinstance(variable, str) and variable.startswith(PREFIX):
        return variable[len(PREFIX) :].lower()
    return None
