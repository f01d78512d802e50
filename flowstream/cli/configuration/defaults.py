"""Defaults of options from the settings, for options that the command line does not give.

An option belongs to a setting by its environment variable: `FLOWSTREAM_HTTP` is `http`. The
settings are read when the first such option is parsed, so that help and completion never read them.

The default of an address that is configured nowhere is the embedded broker of this folder, if one
is running.
"""

from __future__ import annotations

from typing import Any

from flowstream.cli.configuration.options import PREFIX


class Defaults(dict[str, Any]):
    """The defaults of one command, looked up when the parser asks for them.

    Option -> (its setting, whether it is repeatable, whether it is an address with a default).
    """

    @classmethod
    def of(cls, command: Any) -> Defaults:
        """Those of a command."""
        return cls(
            (option.name, (key, getattr(option, "multiple", False), _is_address(key, option)))
            for option in command.params
            if (key := setting_of(option)) is not None
        )

    def get(self, name: str, default: Any = None) -> Any:
        key = super().get(name)
        if key is None:
            return default
        # The settings are read, and even imported, only here: that takes long.
        from flowstream.cli.configuration.settings import settings
        from flowstream.cli.connection.embedded import broker_of_folder

        setting, multiple, is_address = key
        value = settings().given(setting)
        if value is None and is_address and (found := broker_of_folder()) is not None:
            return found.url
        if value is None:
            return default
        return [value] if multiple else value


def _is_address(key: str, option: Any) -> bool:
    """Whether it is an address that has a default: not that of a run, which may start a broker."""
    return key == "url" and option.default is not None


def setting_of(option: Any) -> str | None:
    """The key of the setting that an option belongs to."""
    variable = option.envvar
    if isinstance(variable, str) and variable.startswith(PREFIX):
        return variable[len(PREFIX) :].lower()
    return None
