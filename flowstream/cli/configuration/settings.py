"""The settings: their schema, the places where they are read, and the origin of each value.

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
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from flowstream.checks import MOST_SECONDS, MOST_WHOLE
from flowstream.cli.connection.management import Management
from flowstream.client import Address, StreamUrl, UrlParts
from flowstream.errors import ConfigurationError, FlowstreamError
from flowstream.schema import Bounds, options_of

PREFIX = "FLOWSTREAM_"
DOTENV = ".env"
PYPROJECT = "pyproject.toml"
TABLE = "tool.flowstream"
URL_SCHEMES = {
    "url": ("rabbitmq-stream", "rabbitmq-stream+tls"),
    "management": ("http", "https"),
}
PIPELINES = "pipelines"
RATE_LIMIT = {
    "rate_limit": "largest number of messages a second; 0 stops intake",
    "rate_limit_bytes": "largest number of bytes a second",
}

LINKS = re.compile(r"(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP)(_.+)?)?)")
"""Names of variables that Kubernetes sets for a service whose name begins with flowstream."""


def _no_truth(value: Any) -> Any:
    """Refuse True and False, which are numbers in Python."""
    if isinstance(value, bool):
        raise ValueError("input should be a number, not true or false")
    return value


Number = Annotated[
    float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False), BeforeValidator(_no_truth)
]
Seconds = Annotated[
    float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False), BeforeValidator(_no_truth)
]
AtLeastZero = Annotated[int, Field(ge=0, le=MOST_WHOLE), BeforeValidator(_no_truth)]


class PipelineOverrides(BaseModel):
    """Options of a pipeline's declaration that may be set differently where it runs."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


@cache
def pipeline_overrides() -> type[PipelineOverrides]:
    """The model of a pipeline's numeric options. A rate limit is two of them.

    It is created, and the pipeline imported, for the first setting of a pipeline: most commands
    read none, and the import takes half of their start.
    """
    from flowstream.pipeline import PipelineOptions

    fields: dict[str, Any] = {}
    for option in options_of(PipelineOptions).values():
        if option.name == "rate_limit":
            for name, text in RATE_LIMIT.items():
                fields[name] = (Number | None, Field(default=None, description=text))
        elif isinstance(option.rule, Bounds):
            field = Field(default=None, description=option.text)
            fields[option.name] = (_number(option.rule) | None, field)
    return create_model("PipelineOverrides", __base__=PipelineOverrides, **fields)


def _number(rule: Bounds) -> Any:
    """The type of a setting, by the rule of the option that it sets."""
    limits: dict[str, Any] = {"gt" if rule.above else "ge": rule.least, "le": rule.most}
    kind = int if rule.whole else float
    return Annotated[kind, Field(**limits, allow_inf_nan=False), BeforeValidator(_no_truth)]


class Settings(BaseSettings):
    """Everything that can be configured. `None` means not set."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    url: SecretStr | None = Field(
        default=None, description="the broker: rabbitmq-stream://user:password@host:port/vhost"
    )
    management: SecretStr | None = Field(
        default=None, description="RabbitMQ's management API: http://user:password@host:15672"
    )
    tls_ca: Path | None = Field(
        default=None,
        description="certificate authorities to trust instead of the system's, a PEM file",
    )
    tls_certificate: Path | None = Field(
        default=None, description="this client's certificate for mutual TLS, a PEM file"
    )
    tls_key: Path | None = Field(default=None, description="the certificate's key, a PEM file")
    tls_key_password: SecretStr | None = Field(default=None, description="the key's password")
    tls_server_name: str | None = Field(
        default=None,
        description="the name expected in the broker's certificate, instead of its host name",
    )
    tls_verify: bool = Field(
        default=True, description="false accepts any certificate; for experiments only"
    )
    sasl: Literal["PLAIN", "EXTERNAL"] = Field(
        default="PLAIN",
        description="PLAIN (user and password) or EXTERNAL (the client's certificate)",
    )
    heartbeat: AtLeastZero = Field(
        default=60, description="requested seconds between heartbeats; 0 requests none"
    )
    frame_max: AtLeastZero = Field(
        default=1_048_576, description="requested size of the largest frame, in bytes"
    )
    connect_timeout: Seconds = Field(
        default=10.0, description="seconds allowed for opening a connection"
    )
    request_timeout: Seconds = Field(
        default=10.0, description="seconds allowed for an answer of the broker"
    )
    http: str | None = Field(
        default=None,
        description="HOST:PORT of the live page, /metrics and health checks; not served if not set",
    )
    http_control: bool = Field(
        default=False,
        description="allow the live page to control pipelines and replay dead letters",
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        default="warning", description="the lowest level of log records to write"
    )
    log_format: Literal["text", "json", "logfmt"] = Field(
        default="text", description="format of log records on standard error"
    )
    until_idle: Number | None = Field(
        default=None,
        description="end a run when everything is settled and nothing arrived for so many seconds",
    )
    embedded: bool = Field(
        default=False, description="start an embedded broker for the run, on a free port"
    )
    create: bool = Field(default=False, description="create missing streams that a run needs")
    plain: bool = Field(
        default=False, description="print plain lines instead of the live view on a terminal"
    )
    tune_gc: bool = Field(
        default=True, description="run the garbage collector less often during a run"
    )
    pipelines: dict[str, Any] = Field(
        default_factory=dict, description="options of pipelines, by name"
    )

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("sasl", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("url", "management")
    @classmethod
    def _parsed(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            try:
                _parse_url(str(info.field_name), value.get_secret_value())
            except FlowstreamError as error:
                raise ValueError(str(error).partition(": ")[2]) from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the given values: `load` reads the places one by one, to know the origins."""
        return (init_settings,)


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

    settings: Settings
    origins: Mapping[str, Origin]

    def given(self, key: str) -> Any:
        """The plain value of a key if it is set; None otherwise."""
        return plain(getattr(self.settings, key)) if key in self.origins else None

    def with_flags(self, flags: Mapping[str, Any]) -> Loaded:
        """The settings with values from command-line options, by key, put over them."""
        given = {key: Origin("flag", f"--{key.replace('_', '-')}") for key in flags}
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
    return load(Path.cwd()).with_flags(_flags)


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
    return [name for name in Settings.model_fields if name != PIPELINES]


def secrets() -> frozenset[str]:
    """The keys whose values are secret."""
    fields = Settings.model_fields.items()
    return frozenset(name for name, field in fields if SecretStr in get_args(field.annotation))


def without_password(key: str, value: str) -> str:
    """A secret as it may be shown: an address with its password masked, or only asterisks."""
    schemes = URL_SCHEMES.get(key)
    if schemes is None:
        return "***"
    try:
        return UrlParts.split(value, schemes=schemes, example="").shown
    except ConfigurationError:
        return "***"


def plain(value: Any) -> Any:
    """A value as it is written on the command line."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path | Address) else value


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


def _parse_url(key: str, value: str) -> None:
    if key == "url":
        StreamUrl.parse(value)
    else:
        Management.parse(value)


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
    head, dot, rest = key.partition(".")
    if head != PIPELINES or "." not in rest:
        return [key]
    name, _, option = rest.rpartition(".")
    return [head, name, option] if dot else [key]


# -- errors


def _check_key(key: str, layer: Layer) -> None:
    parts = _split(key)
    if len(parts) == 1 and key.startswith(f"{PIPELINES}."):
        options = ", ".join(pipeline_overrides().model_fields)
        raise ConfigurationError(f"{layer.origin(key)}: a table of options is expected: {options}")
    if len(parts) == 3:
        known, last = list(pipeline_overrides().model_fields), parts[2]
    else:
        known, last = list(Settings.model_fields), parts[0]
    if last in known:
        return
    near = difflib.get_close_matches(last, known, 1, 0.4)
    prefix = ".".join(parts[:-1])
    wanted = layer.origin(f"{prefix}.{near[0]}" if prefix else near[0]) if near else None
    hint = f"did you mean {wanted.name}?" if wanted else f"known settings: {', '.join(known)}"
    raise ConfigurationError(f"{layer.origin(key)}: there is no such setting; {hint}")


def _what_is_wrong(error: ValidationError, origins: Mapping[str, Origin], place: str) -> str:
    """The first invalid value, by place and key. The value is not shown: it may be secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = place + ".".join(str(part) for part in first["loc"])
    origin = next((o for key, o in origins.items() if f"{location}.".startswith(f"{key}.")), None)
    message = first["msg"].removeprefix("Value error, ")
    return f"{origin or location}: {message[0].lower()}{message[1:]}"


def _short(file: Path) -> str:
    """The path relative to the current directory, if that is shorter."""
    relative = os.path.relpath(file)
    return relative if len(relative) < len(str(file)) else str(file)
