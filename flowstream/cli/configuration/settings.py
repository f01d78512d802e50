"""The settings: the places where they are read, and the origin of each value.

The first place with a value decides: an option on the command line, the environment
(`FLOWSTREAM_URL`), `.env` in the current directory, `[tool.flowstream]` in the nearest
pyproject.toml upwards, the default. An unknown key is refused, with the closest known key.

Settings are read when the first one is needed. A command that needs none never fails because of
them.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsError,
)

from flowstream.cli.configuration.models import (
    OPTIONS,
    PIPELINES,
    PipelineOverrides,
    Settings,
    SettingsModel,
    pipeline_options,
    pipeline_overrides,
    plain,
)
from flowstream.cli.configuration.options import PREFIX, flag
from flowstream.client import UrlParts
from flowstream.errors import ConfigurationError
from flowstream.texts import clipped, shown

DOTENV = ".env"
PYPROJECT = "pyproject.toml"
TABLE = "tool.flowstream"
URL_SCHEMES = {
    "url": ("rabbitmq-stream", "rabbitmq-stream+tls"),
    "management": ("http", "https"),
}
SHOWN = 80
"""Characters of a wrong value that an error shows."""

LINKS = re.compile(r"(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP)(_.+)?)?)")
"""Names of variables that Kubernetes sets for a service whose name begins with flowstream."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    `place` is flag, environment, .env, pyproject.toml or default; `name` is the key there.
    """

    place: str
    name: str = ""
    file: Path | None = None

    def __str__(self) -> str:
        where = "" if self.file is None else f"{_short(self.file)}: "
        return f"{where}{self.name}" or self.place


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, with the origin of each key that is set. Keys of pipelines have dots."""

    settings: SettingsModel
    origins: Mapping[str, Origin]

    def given(self, key: str) -> Any:
        """The plain value of a key if it is set; None otherwise."""
        return plain(getattr(self.settings, key)) if key in self.origins else None

    def with_flags(self, flags: Mapping[str, Any]) -> Loaded:
        """The settings with values from command-line options, by key, put over them."""
        given = {key: Origin("flag", flag(key)) for key in flags}
        values = self.settings.model_copy(update=dict(flags))
        return replace(self, settings=values, origins={**self.origins, **given})

    def overrides(self, pipeline: str) -> dict[str, tuple[Any, Origin]]:
        """The options that are set for a pipeline, each with its value and origin."""
        found: dict[str, tuple[Any, Origin]] = {}
        for name in names_of(pipeline):
            for option, value in self.settings.pipelines.get(name, ()):
                if value is not None:
                    found[option] = (value, self.origins[f"{PIPELINES}.{name}.{option}"])
        return found


def names_of(pipeline: str) -> list[str]:
    """The names of a pipeline in the settings: its own, and the one in names of variables.

    The latter is in lower case, with _ for every character that a variable's name cannot have.
    """
    return list(dict.fromkeys((pipeline, re.sub(r"\W", "_", pipeline).lower())))


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one place, by key."""

    values: Mapping[str, Any]
    place: str
    file: Path | None = None

    def origin(self, key: str) -> Origin:
        if self.place == PYPROJECT:
            table, _, last = f"{TABLE}.{key}".rpartition(".")
            return Origin(self.place, f"[{table}] {last}", self.file)
        return Origin(self.place, PREFIX + key.upper().replace(".", "__"), self.file)


_flags: dict[str, Any] = {}


@cache
def settings() -> Loaded:
    """The settings of this process, read once, with its command-line options put over them."""
    return _read().with_flags(_flags)


@cache
def _read() -> Loaded:
    """Those of every place, which the parser needs before all options are known."""
    return load(Path.cwd())


def set_flags(flags: Mapping[str, Any]) -> None:
    """Set the command-line options, by key, that have precedence over every place."""
    _flags.clear()
    _flags.update(flags)
    settings.cache_clear()


def load(folder: Path) -> Loaded:
    """Read every place, the one with the lowest precedence first.

    Raises ConfigurationError, with the place and the key, for an unreadable file, an unknown key or
    an invalid value.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer in (_pyproject(folder), _dotenv(folder / DOTENV), _environment()):
        for key, value in layer.values.items():
            _check_key(key, layer)
            values[key], origins[key] = value, layer.origin(key)
    nested = _nested(values)
    pipelines = nested.pop(PIPELINES, {})
    checked: dict[str, PipelineOverrides] = {}
    place = ""
    try:
        loaded = Settings(**nested)
        for name, options in pipelines.items():
            place = f"{PIPELINES}.{name}."
            checked[name] = pipeline_overrides().model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(_what_is_wrong(error, origins, place)) from None
    return Loaded(loaded.model_copy(update={PIPELINES: checked}), origins)


def keys() -> list[str]:
    """Every key except those of pipelines."""
    return list(OPTIONS)


def secrets() -> frozenset[str]:
    """The keys whose values are secret."""
    return frozenset(key for key, option in OPTIONS.items() if option.rule.secret)


def without_password(key: str, value: str) -> str:
    """A secret as it may be shown: an address with its password masked, or only asterisks."""
    schemes = URL_SCHEMES.get(key)
    if schemes is None:
        return "***"
    try:
        return UrlParts.split(value, schemes=schemes, example="").shown
    except ConfigurationError:
        return "***"


# -- places


def _environment() -> Layer:
    source = EnvSettingsSource(Settings)
    names = [name for name in os.environ if name.upper().startswith(PREFIX)]
    return _from_variables(source, names, "environment", None)


def _dotenv(file: Path) -> Layer:
    try:
        source = DotEnvSettingsSource(Settings, env_file=file, env_file_encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{_short(file)} cannot be read: {error}") from error
    names = [name for name in source.env_vars if name.upper().startswith(PREFIX)]
    return _from_variables(source, names, DOTENV, file)


def _from_variables(
    source: EnvSettingsSource, names: list[str], place: str, file: Path | None
) -> Layer:
    """Variables by key. Unknown variables are kept under their own name, and are refused later."""
    if not names:  # to look for every setting takes milliseconds of every command
        return Layer({}, place, file)
    try:
        read = {key: value for key, value in source().items() if key in Settings.model_fields}
    except SettingsError as error:
        raise ConfigurationError(f"{_short(file) if file else place}: {error}") from error
    values = dict(_flat(read))
    for name in names:
        key = name[len(PREFIX) :].lower().replace("__", ".")
        known = key in Settings.model_fields or key.startswith(f"{PIPELINES}.")
        if not known and not LINKS.fullmatch(name[len(PREFIX) :].upper()):
            values[key] = None
    return Layer(values, place, file)


def _pyproject(folder: Path) -> Layer:
    file = next(
        (f for parent in (folder, *folder.parents) if (f := parent / PYPROJECT).is_file()), None
    )
    if file is None:
        return Layer({}, PYPROJECT)
    try:
        table: Any = tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{_short(file)} cannot be read: {error}") from error
    for name in TABLE.split("."):
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{_short(file)}: {TABLE} must be a table, written as [{TABLE}]"
            )
    return Layer(dict(_flat(table)), PYPROJECT, file)


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value and path.count(".") < 2:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        inner = nested
        *parents, last = _split(key)
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def _split(key: str) -> list[str]:
    """The parts of `pipelines.NAME.option`, where NAME may have dots."""
    head, _, rest = key.partition(".")
    if head != PIPELINES or "." not in rest:
        return [key]
    name, _, option = rest.rpartition(".")
    return [head, name, option]


# -- errors


def _check_key(key: str, layer: Layer) -> None:
    parts = _split(key)
    if key == PIPELINES and layer.values[key] != {}:
        raise ConfigurationError(f"{layer.origin(key)}: a table of pipelines by name is expected")
    if len(parts) == 1 and key.startswith(f"{PIPELINES}."):
        options = ", ".join(pipeline_overrides().model_fields)
        raise ConfigurationError(f"{layer.origin(key)}: a table of options is expected: {options}")
    if len(parts) == 3:
        known, last = list(pipeline_overrides().model_fields), parts[2]
    else:
        known, last = [*OPTIONS, PIPELINES], parts[0]
    if last in known:
        return
    near = difflib.get_close_matches(last, known, 1, 0.4)
    prefix = ".".join(parts[:-1])
    wanted = layer.origin(f"{prefix}.{near[0]}" if prefix else near[0]) if near else None
    hint = f"did you mean {wanted.name}?" if wanted else f"known settings: {', '.join(known)}"
    raise ConfigurationError(f"{layer.origin(key)}: there is no such setting; {hint}")


def _what_is_wrong(error: ValidationError, origins: Mapping[str, Origin], place: str) -> str:
    """The first invalid value, by place and key. One that may be secret is not shown."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    location = place + ".".join(map(str, first["loc"]))
    origin = next((o for key, o in origins.items() if f"{location}.".startswith(f"{key}.")), None)
    option = (pipeline_options() if place else OPTIONS).get(key)
    value, reason = "", first["msg"].removeprefix("Value error, ")
    if option is not None:
        value = "" if option.rule.secret else f"={_shown(first['input'])}"
        reason = reason if first["type"] == "value_error" else f"expected {option.rule.expected}"
    return f"{origin or location}{value}: {reason}"


def _shown(value: Any) -> str:
    """A wrong value: text as it was written."""
    return clipped(value, SHOWN) if isinstance(value, str) else shown(value)


def _short(file: Path) -> str:
    """The path relative to the current directory, if that is shorter."""
    relative = os.path.relpath(file)
    return relative if len(relative) < len(str(file)) else str(file)
