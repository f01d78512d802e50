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

To add an option, add a field.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar

from flowstream.checks import MOST_SECONDS, MOST_WHOLE, is_number, is_whole
from flowstream.errors import ConfigurationError
from flowstream.texts import shown, type_name

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")

LENGTH = 200
"""Characters of a wrong value that an error shows."""


# -- rules


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, in words, and the test of it. An error does not show a `secret`."""

    expected: str
    accepts: Callable[[Any], bool]
    secret: bool = False

    def check(self, option: str, value: object, path: str = "") -> None:
        """Raise ConfigurationError unless the value passes."""
        if self.accepts(value):
            return
        if self.secret:
            raise ConfigurationError(
                f"{_at(path, option)}: expected {self.expected}, not an object of type "
                f"{type_name(value)}"
            )
        if path:
            raise ConfigurationError(
                f"{_at(path, option)}: expected {self.expected}, got {shown(value, LENGTH)}"
            )
        raise ConfigurationError(f"{option}={shown(value)}: expected {self.expected}")


@dataclass(frozen=True, slots=True)
class Bounds(Rule):
    """A number from `least` to `most`, and whole where `whole` says so; `above`: not `least`."""

    least: float = 0
    most: float = MOST_WHOLE
    whole: bool = False
    above: bool = False


@dataclass(frozen=True, slots=True)
class Checked(Rule):
    """A rule whose errors say more than what is expected: `function` raises them."""

    function: Callable[[str, Any], object] = lambda option, value: None

    def check(self, option: str, value: object, path: str = "") -> None:
        """Raise the function's own ConfigurationError."""
        self.function(_at(path, option), value)


def whole(least: int, most: int | None = None, *, unit: str = "") -> Bounds:
    """A whole number from `least` on, up to `most`. True and False are not numbers."""
    limit = f"of at least {least}" if most is None else f"from {least} to {most}"
    top = MOST_WHOLE if most is None else most
    return Bounds(
        f"a whole number {limit}{f' ({unit})' if unit else ''}",
        lambda value: is_whole(value, least, top),
        least=least, most=top, whole=True,
    )  # fmt: skip


def seconds(least: float = 0, *, above: bool = True) -> Bounds:
    """A time in seconds: more than `least`, or from `least` on."""
    return Bounds(
        f"a number of seconds, {'more than' if above else 'at least'} {least:g}",
        lambda value: is_number(value, least, MOST_SECONDS) and not (above and value == least),
        least=least, most=MOST_SECONDS, above=above,
    )  # fmt: skip


SECONDS = seconds()


def function_of(what: str) -> Rule:
    """A plain function, such as "one message"; not a coroutine function."""
    return Rule(
        f"a function of {what}, a plain def",
        lambda value: callable(value) and not inspect.iscoroutinefunction(value),
    )


def checked(function: Callable[[str, Any], object], expected: str) -> Checked:
    """What `function(option, value)` does not refuse, such as `checks.check_name`."""
    return Checked(expected, lambda value: True, function=function)


def a(kind: type | tuple[type, ...], expected: str, *, secret: bool = False) -> Rule:
    """An object of a class, in words of your own."""
    return Rule(expected, lambda value: isinstance(value, kind), secret)


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
        rule.check(self.name, value, path)


required = inspect.Parameter.empty


def options_of(schema: Callable[..., Any]) -> Mapping[str, Option]:
    """The options that a schema declares, by name, in the order of its signature."""
    return _options_of(schema)


@cache
def _options_of(schema: Any) -> Mapping[str, Option]:
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = sorted(dataclasses.fields(schema), key=lambda field: bool(field.kw_only))
    return {field.name: _option(schema, field, hints[field.name]) for field in fields}


def check(options: Any, path: str = "") -> None:
    """Raise ConfigurationError for the first option whose value cannot work."""
    for option in options_of(type(options)).values():
        option.check(getattr(options, option.name), path)


def bind(schema: Callable[..., T], arguments: Sequence[Any], values: Mapping[str, Any],
         path: str = "") -> T:  # fmt: skip
    """Options from a call's arguments, not checked yet.

    Raises ConfigurationError for an option that does not exist, and TypeError as every function
    does where a required one is missing.
    """
    known = options_of(schema)
    for name in values:
        if name not in known:
            raise ConfigurationError(
                f"{_at(path, name)}: there is no such option; there are {', '.join(known)}"
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


def _rule_of(declared: Any, name: str) -> Rule:
    """The rule that a type is by itself."""
    arguments = typing.get_args(declared)
    if NoneType in arguments:
        (declared,) = [each for each in arguments if each is not NoneType]
    origin = typing.get_origin(declared)
    if declared is bool:
        return Rule("True or False", lambda value: isinstance(value, bool))
    if origin is Literal:
        values = typing.get_args(declared)
        quoted = [f'"{value}"' for value in values]
        words = " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
        return Rule(words, lambda value: isinstance(value, str) and value in values)
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
        return Rule("a function", callable)
    if isinstance(declared, type) and declared.__module__ != "builtins":
        return a(declared, f"a {declared.__name__}(...)")
    raise TypeError(f"{name}: {declared!r} is not a rule by itself; write one behind the type")
