"""How an option is written once: a field of a frozen dataclass, with a rule and a sentence.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Limits:
        \"\"\"Options of a limiter.\"\"\"

        messages: Annotated[int, whole(1, unit="messages"), "how many pass in an interval"] = 100
        interval: Annotated[float | None, SECONDS, "the time that messages are counted in"] = None

Name, type and default are the field's. What follows the type is the rule that a value must pass,
and one sentence. A type that says enough needs no rule: `bool`, a `Literal`, a class, a function.
None is allowed where the type allows it. From the field follow

* the signature that type checkers, editors and `inspect.signature` see: `@takes(Limits)`
* the check, and the error that names place, option, value, expectation and unit: `make`, `check`
* everything that lists options: `options_of`, which help, documentation and settings are made of

A value that users make themselves, such as `Retry(attempts=5)`, is a schema too: `@listing` gives
it the list, and its `__post_init__` calls `check`. To add an option, add a field.

Every wrong option is a ConfigurationError of one form, `PLACE > option=value: expected ...`. The
place is left out for an option of a call, such as `Environment(heartbeat=...)`.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar

from flowstream.checks import (
    MAX_NAME,
    MOST_FILTER_VALUE,
    MOST_SECONDS,
    MOST_WHOLE,
    check_name,
    check_secret,
    check_stream,
    check_text,
    is_number,
    is_whole,
    longest_stream,
)
from flowstream.errors import ConfigurationError
from flowstream.texts import shown, type_name

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")

# -- rules


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, in words, and the test of it. An error does not show a `secret`."""

    expected: str
    accepts: Callable[[Any], bool]
    secret: bool = False

    def check(self, option: str, value: object) -> None:
        """Raise ConfigurationError unless the value passes."""
        if self.accepts(value):
            return
        if self.secret:
            raise ConfigurationError(
                f"{option}: expected {self.expected}, not an object of type {type_name(value)}"
            )
        raise ConfigurationError(f"{option}={shown(value)}: expected {self.expected}")


@dataclass(frozen=True, slots=True)
class Bounds(Rule):
    """A number from `least` to `most`, and whole where `whole` says so; `above`: not `least`."""

    least: float = 0
    most: float = MOST_WHOLE
    whole: bool = False
    above: bool = False
    ceiling: str = ""
    """What an error adds for a value that is above `most`, where `expected` does not say it."""

    def check(self, option: str, value: object) -> None:
        """Raise ConfigurationError unless the value passes."""
        rule: Rule = self
        if self.ceiling and is_number(value, self.most, math.inf):
            rule = Rule(f"{self.expected}; {self.ceiling}", self.accepts)
        Rule.check(rule, option, value)


@dataclass(frozen=True, slots=True)
class Checked(Rule):
    """A rule whose errors say more than what is expected: `function` raises them."""

    function: Callable[[str, Any], object] = lambda option, value: None

    def check(self, option: str, value: object) -> None:
        """Raise the function's own ConfigurationError."""
        self.function(option, value)


def whole(least: int, most: int | None = None, *, unit: str = "") -> Bounds:
    """A whole number from `least` on, up to `most`. True and False are not numbers."""
    limit = f"of at least {least}" if most is None else f"from {least} to {most}"
    top = MOST_WHOLE if most is None else most
    return Bounds(
        f"a whole number {limit}{f' ({unit})' if unit else ''}",
        lambda value: is_whole(value, least, top),
        least=least, most=top, whole=True,
        ceiling="" if most is not None else f"at most {MOST_WHOLE:,}",
    )  # fmt: skip


def number(least: float, most: float, *, unit: str = "") -> Bounds:
    """A finite number, whole or not."""
    return Bounds(
        f"a number from {least:g} to {most:g}{f' ({unit})' if unit else ''}",
        lambda value: is_number(value, least, most),
        least=least, most=most,
    )  # fmt: skip


def seconds(least: float = 0, *, above: bool = True) -> Bounds:
    """A time in seconds: more than `least`, or from `least` on."""
    return Bounds(
        f"a number of seconds, {'more than' if above else 'at least'} {least:g}",
        lambda value: is_number(value, least, MOST_SECONDS) and not (above and value == least),
        least=least, most=MOST_SECONDS, above=above, ceiling=f"at most {MOST_SECONDS:,.0f}",
    )  # fmt: skip


SECONDS = seconds()
FLAG = Rule("True or False", lambda value: isinstance(value, bool))
"""Other values are refused: as a condition the string "no" would be true."""
AWAITED = Rule("an async function", callable)
"""Whether its answer can be awaited is known once it is called: by `answer_of`."""


async def answer_of(option: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What an async function of the user's returns; ConfigurationError if it is a plain one."""
    answer = function(*arguments)
    if not inspect.isawaitable(answer):
        raise ConfigurationError(
            f"{option}={shown(function)}: expected an async function, not one that returns an "
            f"object of type {type_name(answer)}"
        )
    return await answer


def is_plain(value: object) -> bool:
    """Whether it can be called, and is no `async def`, whose answer nobody would await."""
    return callable(value) and not (
        inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)
    )


PLAIN = Rule("a function, a plain def", is_plain)


def function_of(what: str) -> Rule:
    """A plain function, such as "one message"; not a coroutine function."""
    return Rule(f"a function of {what}, a plain def", is_plain)


def checked(
    function: Callable[[str, Any], object], expected: str, *, secret: bool = False
) -> Checked:
    """What `function(option, value)` does not refuse, such as `checks.check_name`."""
    return Checked(expected, lambda value: True, secret, function=function)


def a(kind: type | tuple[type, ...], expected: str, *, secret: bool = False) -> Rule:
    """An object of a class, in words of your own."""
    return Rule(expected, lambda value: isinstance(value, kind), secret)


def text(least: int, most: int) -> Checked:
    """A string of so many bytes in UTF-8."""
    return checked(
        lambda option, value: check_text(option, value, least, most),
        f"a string of {least} to {most} bytes",
    )


NAME = checked(check_name, f"a name of 1 to {MAX_NAME} bytes")
STREAM = checked(check_stream, f"the name of a stream, of 1 to {longest_stream('/')} bytes")
SECRET = checked(check_secret, "a string", secret=True)
FILTER_VALUE = text(0, MOST_FILTER_VALUE)
ANYTHING = Rule("anything", lambda value: True)


# -- options


@dataclass(frozen=True, slots=True)
class Option:
    """One option: everything that its field says. `default` is `required` where there is none."""

    name: str
    type: Any
    default: Any
    rule: Rule
    text: str
    positional: bool

    @property
    def optional(self) -> bool:
        """Whether None is a value of it."""
        return NoneType in typing.get_args(self.type)

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return f"{self.rule.expected}, or None" if self.optional else self.rule.expected

    def check(self, value: object, path: str = "") -> None:
        """Raise ConfigurationError for a value that cannot work."""
        if value is None and self.optional:
            return
        rule = self.rule
        if self.optional and not isinstance(rule, Checked):
            rule = dataclasses.replace(rule, expected=self.expected)
        rule.check(_at(path, self.name), value)


required = inspect.Parameter.empty


def options_of(schema: Callable[..., Any]) -> Mapping[str, Option]:
    """The options that a schema declares, by name, in the order of its signature.

    Those of a class whose constructor `takes` a schema are that schema's.
    """
    return _options_of(getattr(getattr(schema, "__init__", None), "__schema__", schema))


@cache
def _options_of(schema: Any) -> Mapping[str, Option]:
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = sorted(dataclasses.fields(schema), key=lambda field: bool(field.kw_only))
    return {field.name: _option(schema, field, hints[field.name]) for field in fields}


def check(options: Any, path: str = "") -> None:
    """Raise ConfigurationError for the first option whose value cannot work.

    `path` is what errors call the place, such as `pipeline 'orders' > batcher 'prices'`.
    """
    for option in options_of(type(options)).values():
        option.check(getattr(options, option.name), path)


def bind(schema: Callable[..., T], arguments: Sequence[Any], values: Mapping[str, Any],
         path: str = "") -> T:  # fmt: skip
    """Options from a call's arguments, not checked yet.

    Raises ConfigurationError for an option that does not exist, and TypeError as every function
    does where a required one is missing, or there are too many arguments.
    """
    known = options_of(schema)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigurationError(
                f"{_at(path, name)}={shown(values[name])}: there is no such option; {hint}"
            )
    named = [option.name for option in known.values() if not option.positional]
    most = len(known) - len(named)
    if len(arguments) > most:
        raise TypeError(
            f"{path + ': ' if path else ''}{shown(arguments[most])} is one argument too many; "
            f"write the name of the option that it is for: {', '.join(named)}"
        )
    try:
        signature_of(schema).bind(*arguments, **values)
    except TypeError as error:
        raise TypeError(f"{path}: {error}" if path else str(error)) from None
    return schema(*arguments, **values)


def make(schema: Callable[..., T], arguments: Sequence[Any], values: Mapping[str, Any],
         path: str = "") -> T:  # fmt: skip
    """Options from a call's arguments, checked; `path` is what errors call the place."""
    options = bind(schema, arguments, values, path)
    check(options, path)
    return options


def part(schema: Callable[..., T], options: Any) -> T:
    """The options of a schema out of those of one that is derived from it."""
    names = options_of(schema)
    return schema(**{name: getattr(options, name) for name in names})


# -- signatures


def takes(
    schema: Callable[P, object],
) -> Callable[[Callable[Concatenate[S, ...], R]], Callable[Concatenate[S, P], R]]:
    """Give a method the signature of a schema, for type checkers, editors and `inspect`.

    The method itself takes `*arguments, **values` and hands them to `make`.
    """
    return shows(schema)


def shows(schema: Callable[..., object]) -> Callable[[Any], Any]:
    """The same at run time only, for an implementation whose overloads `takes` has typed."""

    def decorate(method: Any) -> Any:
        method.__schema__ = schema
        method.__signature__ = signature_of(schema, method)
        lines = "\n".join(listed(schema))
        method.__doc__ = "\n\n".join(filter(None, (inspect.getdoc(method), lines)))
        return method

    return decorate


def listing(kind: type[T]) -> type[T]:
    """Add the options of a dataclass that users make themselves to its docstring."""
    kind.__doc__ = "\n\n".join((inspect.getdoc(kind) or "", "\n".join(listed(kind))))
    kind.__signature__ = signature_of(kind)  # type: ignore[attr-defined]
    return kind


def signature_of(
    schema: Callable[..., Any], method: Callable[..., Any] | None = None
) -> inspect.Signature:
    """The signature of a schema's constructor, or of a method that takes its options."""
    first = [] if method is None else [*inspect.signature(method).parameters.values()][:1]
    parameters = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD
            if option.positional
            else inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=option.type,
        )
        for option in options_of(schema).values()
    ]
    returns = required if method is None else inspect.signature(method).return_annotation
    return inspect.Signature([*first, *parameters], return_annotation=returns)


def listed(schema: Callable[..., Any]) -> Iterator[str]:
    """The options as the lines of a list, for docstrings."""
    for option in options_of(schema).values():
        default = "" if option.default is required else f"; {option.default!r} by default"
        yield f"- `{option.name}`: {option.text} ({option.expected}{default})"


# -- inside


def _at(path: str, option: str) -> str:
    return f"{path} > {option}" if path else option


def _option(schema: Any, field: dataclasses.Field[Any], hint: Any) -> Option:
    declared, extras = hint, []
    if typing.get_origin(hint) is Annotated:
        declared, *extras = typing.get_args(hint)
    rules = [extra for extra in extras if isinstance(extra, Rule)]
    texts = [extra for extra in extras if isinstance(extra, str)]
    if len(texts) != 1 or len(rules) > 1:
        raise TypeError(f"{schema.__name__}.{field.name}: write one sentence and at most one rule")
    default = required if field.default is dataclasses.MISSING else field.default
    rule = rules[0] if rules else _rule_of(declared, f"{schema.__name__}.{field.name}")
    return Option(field.name, declared, default, rule, texts[0], positional=not bool(field.kw_only))


def _one_of(values: Sequence[str | bool]) -> Rule:
    quoted = [f'"{each}"' if isinstance(each, str) else f"{each}" for each in values]
    words = " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
    return Rule(words, lambda value: isinstance(value, str | bool) and value in values)


def _rule_of(declared: Any, name: str) -> Rule:
    """The rule that a type is by itself."""
    arguments = typing.get_args(declared)
    if NoneType in arguments:
        (declared,) = [each for each in arguments if each is not NoneType]
        arguments = typing.get_args(declared)
    origin = typing.get_origin(declared)
    if declared is bool:
        return FLAG
    if origin is Literal:
        return _one_of(typing.get_args(declared))
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
        returned = typing.get_origin(arguments[-1])
        return AWAITED if returned is Awaitable else PLAIN
    if isinstance(declared, type) and issubclass(declared, StrEnum):
        return _one_of([each.value for each in declared])
    if isinstance(declared, type) and declared.__module__ != "builtins":
        return a(declared, f"a {declared.__name__}(...)")
    raise TypeError(f"{name}: {declared!r} is not a rule by itself; write one behind the type")
