"""The settings as models: pydantic turns text into values, and each option's rule checks them.

The fields are made from the options (options.py, `Tls`, the client's `Environment`, and those of a
pipeline), so that a setting has the bounds and the sentence of the option that it sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    create_model,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flowstream.cli.configuration.options import CONNECTION, PREFIX, command_line_options
from flowstream.cli.connection.management import Management
from flowstream.client import Address, Environment, StreamUrl
from flowstream.errors import FlowstreamError
from flowstream.schema import Bounds, Option, options_of

PIPELINES = "pipelines"
URLS: Mapping[str, Callable[[str], object]] = {
    "url": StreamUrl.parse,
    "management": Management.parse,
}


def _options() -> dict[str, Option]:
    found = {}
    for key, option in command_line_options():
        found[key] = option
        if key == "sasl":
            found |= {name: options_of(Environment)[name] for name in CONNECTION}
    return found


OPTIONS: Mapping[str, Option] = _options()
"""Every setting but those of pipelines, by key."""


@cache
def pipeline_options() -> Mapping[str, Option]:
    """The numeric options of a pipeline, by key. A rate limit is two of them.

    The pipeline is imported for the first setting of a pipeline: most commands read none, and the
    import takes half of their start.
    """
    from flowstream.pipeline import PipelineOptions, RateLimit

    found: dict[str, Option] = {}
    for name, option in options_of(PipelineOptions).items():
        if name == "rate_limit":
            found |= {name: options_of(RateLimit)["messages"]}
            found |= {f"{name}_bytes": options_of(RateLimit)["bytes"]}
        elif isinstance(option.rule, Bounds):
            found[name] = option
    return found


# -- fields


def kind_of(option: Option) -> Any:
    """What the text of a setting is turned into."""
    if option.rule.secret:
        return SecretStr
    arms = [arm for arm in get_args(option.type) or (option.type,) if arm is not NoneType]
    return Path if Path in arms else arms[0]


def _field(key: str, option: Option, default: Any) -> tuple[Any, Any]:
    kind: Any = kind_of(option)

    def prepared(value: Any) -> Any:
        """Numbers are not made from true and false; choices may be written in any case."""
        if isinstance(option.rule, Bounds) and isinstance(value, bool):
            raise ValueError(f"expected {option.rule.expected}")
        if isinstance(value, str) and issubclass(kind, StrEnum):
            return next((each for each in kind if each.lower() == value.lower()), value)
        return value

    def checked(value: Any) -> Any:
        if value is None:
            return None
        try:
            option.rule.check(key, plain(value))
            if key in URLS:
                URLS[key](plain(value))
        except FlowstreamError as error:
            raise ValueError(_reason(error)) from None
        return value

    declared: Any = Annotated[kind, BeforeValidator(prepared), AfterValidator(checked)]
    return declared if default is not None else declared | None, Field(
        default=default, description=option.text
    )


def _reason(error: FlowstreamError) -> str:
    """What is expected. What comes before it has the option's name, and may have its value."""
    text = str(error)
    _, found, after = text.partition(": expected ")
    return f"expected {after}" if found else text.partition(": ")[2]


def plain(value: Any) -> Any:
    """A value as it is written on the command line."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return str(Address(*value))
    return str(value) if isinstance(value, Path | StrEnum) else value


# -- models


class PipelineOverrides(BaseModel):
    """Options of a pipeline's declaration that may be set differently where it runs."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


@cache
def pipeline_overrides() -> type[PipelineOverrides]:
    """The model of a pipeline's options."""
    fields = {key: _field(key, option, None) for key, option in pipeline_options().items()}
    return create_model("PipelineOverrides", __base__=PipelineOverrides, **_any(fields))


class SettingsModel(BaseSettings):
    """What every model of the settings has: the options of pipelines, by name."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )
    pipelines: dict[str, Any] = Field(
        default_factory=dict, description="options of pipelines, by name"
    )

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


def _any(fields: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    return dict(fields)


Settings: type[SettingsModel] = create_model(
    "Settings",
    __base__=SettingsModel,
    **_any({key: _field(key, option, option.default) for key, option in OPTIONS.items()}),
)
"""Everything that can be configured. `None` means not set."""
