"""Commands as this project wants them from Typer, and the applications that have them.

A `Command` takes its defaults from the settings, refuses an address where a name is expected, and
takes a negative number as an argument. One with a `url` parameter gets the login options as well.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from flowstream.cli.configuration.defaults import Defaults
from flowstream.cli.parser.group import (
    RICH_HELP,
    Group,
    first_sentence,
    hide_types_of_flags,
    unwrapped,
    without_metavar,
)
from flowstream.cli.parser.options import LOGIN_OPTIONS, MAX_NUMBER

F = TypeVar("F", bound=Callable[..., Any])
COMMAND_LINE = "COMMAND"
"""The metavar of an argument that is a command line of its own."""

WORDS_AFTER = "flowstream.words_after"
"""The key in a context's `meta` for words after an option that are not its value: word -> (option,
what its value would be)."""

_URL = re.compile(r"\s*(rabbitmq-stream(\+tls)?|amqps?|https?):/", re.IGNORECASE)
_NEGATIVE = re.compile(r"-[0-9.].*")


class Command(TyperCommand):
    """A command with the habits that the first lines of this file name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help: str | None = unwrapped(self.help)
        self.short_help: str | None = first_sentence(self.help)
        hide_types_of_flags(self.params)

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        # Help shows the program's defaults: configured values may be secret. Completion needs none.
        if not extra.get("resilient_parsing") and not _asks_for_help(args):
            extra["default_map"] = Defaults.of(self)
        return super().make_context(info_name, args, parent=parent, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, arguments_last(args, self.params))
        param: Any
        for param in self.params:
            value = ctx.params.get(param.name)
            words = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(word, float) and not abs(word) <= MAX_NUMBER for word in words):
                message = f"a number of at most {MAX_NUMBER:,.0f} is expected"
                raise typer.BadParameter(message, ctx, param)
            named = param.param_type_name == "argument" and param.metavar != COMMAND_LINE
            if named and any(_URL.match(str(word)) for word in words if word is not None):
                # Used as a name it would be quoted in errors, with its password.
                raise typer.BadParameter(
                    "a name is expected here, not an address; give an address with --url",
                    ctx,
                    param,
                )
        return rest

    def get_help_option(self, ctx: Any) -> Any:
        return without_metavar(super().get_help_option(ctx))


def _asks_for_help(args: Sequence[str]) -> bool:
    return not {"--help", "-h"}.isdisjoint(args)


def arguments_last(args: list[str], params: Sequence[Any]) -> list[str]:
    """The line with its arguments after `--` where a negative number is among them. Pure.

    The parser would take the number for an option. Other lines are returned as they are.
    """
    takes_value = {
        name: not option.is_flag
        for option in params
        if option.param_type_name == "option"
        for name in (*option.opts, *option.secondary_opts)
    }
    options: list[str] = []
    arguments: list[str] = []
    rest = iter(args)
    for word in rest:
        if word == "--":
            arguments += rest
        elif len(word) < 2 or word[0] != "-" or _is_number(word, takes_value):
            arguments.append(word)
        else:
            options.append(word)
            if takes_value.get(word) and (value := next(rest, None)) is not None:
                options.append(value)
    if any(_is_number(word, takes_value) for word in arguments):
        return [*options, "--", *arguments]
    return args


def _is_number(word: str, options: Mapping[str, bool]) -> bool:
    return _NEGATIVE.fullmatch(word) is not None and word[:2] not in options


# -- applications


class App(typer.Typer):
    """A Typer application whose commands are of the class above, and work in the module `work`."""

    def __init__(self, work: str, **options: Any) -> None:
        super().__init__(**options)
        self.work = work

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Declare a command. The function has its options and its help, and no body: what the
        command does is the function of the same name in the module `work`.
        """
        add = super().command(name, **{"cls": Command, **options})

        def register(function: F) -> F:
            add(with_login(imported(function, self.work)))
            return function

        return register


def new_app(
    name: str | None = None, help: str = "", epilog: str | None = None, *, work: str
) -> App:
    """An application: a group of this name, or without one what holds single commands.

    `work` names the module that does their work. It is imported when a command runs, and not for
    its help.
    """
    return App(
        work,
        name=name,
        cls=Group,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode="rich" if RICH_HELP else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def imported(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """A command with the options of `function`, which is in `module` and imported for each call."""

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        return getattr(import_module(module), function.__name__)(**values)

    return command


def with_login(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes a `url`, with the login options beside it.

    Their values become settings, since every connection is made from the settings.
    """
    signature = inspect.signature(function, eval_str=True)
    url = signature.parameters.get("url")
    if url is None:
        return function

    @functools.wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        from flowstream.cli.configuration.settings import set_flags

        login = {key: values.pop(key) for key in LOGIN_OPTIONS}
        set_flags({key: value for key, value in login.items() if value is not None})
        return function(*args, **values)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters.append(parameter)
        if parameter is url:
            parameters += [
                parameter.replace(name=key, default=None, annotation=annotation)
                for key, annotation in LOGIN_OPTIONS.items()
            ]
    command.__dict__["__signature__"] = signature.replace(parameters=parameters)
    command.__annotations__ = {it.name: it.annotation for it in parameters}
    return command


# -- options whose value may be left out


@dataclass(frozen=True, slots=True)
class OptionalValue:
    """An option that may be given without a value and then has `value`.

    The next word is the option's value only if all of it matches `pattern`. `what` names in words
    what the pattern matches.
    """

    value: str
    pattern: str
    what: str


def fill_optional_values(args: list[str], options: Mapping[str, OptionalValue]) -> list[str]:
    """The line in which every such option has a value. Pure."""
    filled: list[str] = []
    for position, arg in enumerate(args):
        if arg == "--":
            return filled + args[position:]
        following = args[position + 1] if position + 1 < len(args) else ""
        option = options.get(arg)
        if option is not None and not re.fullmatch(option.pattern, following):
            filled.append(f"{arg}={option.value}")
        else:
            filled.append(arg)
    return filled


def words_after(args: list[str], options: Mapping[str, OptionalValue]) -> dict[str, str]:
    """Words that follow such an option and cannot be its value, with the option. Pure.

    They count as arguments of the command.
    """
    end = args.index("--") if "--" in args else len(args)
    return {
        word: option
        for option, word in pairwise(args[:end])
        if option in options
        and not word.startswith("-")
        and not re.fullmatch(options[option].pattern, word)
    }


def command_with_optional_values(options: Mapping[str, OptionalValue]) -> type[TyperCommand]:
    """A class of commands that have these options."""

    class WithOptionalValues(Command):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            found = words_after(args, options)
            ctx.meta[WORDS_AFTER] = {word: (it, options[it].what) for word, it in found.items()}
            return super().parse_args(ctx, fill_optional_values(args, options))

    return WithOptionalValues
