"""What follows from an option that is written once: signature, check, error, list."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

import pytest

from flowstream.checks import check_name
from flowstream.errors import ConfigurationError
from flowstream.schema import (
    SECONDS,
    bind,
    checked,
    listed,
    make,
    options_of,
    part,
    required,
    seconds,
    signature_of,
    takes,
    whole,
)


class Thing:
    """Something that an option may hold."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    size: Annotated[int, whole(1, 10, unit="messages"), "how many at once"] = 5
    wait: Annotated[float | None, SECONDS, "how long at most"] = None
    flag: Annotated[bool, "whether it does"] = False


@dataclass(frozen=True)
class Full(Shared):
    name: Annotated[str, checked(check_name, "a name"), "what it is called"]
    _: KW_ONLY
    mode: Annotated[Literal["fast", "safe"], "how it goes about it"] = "safe"
    hook: Annotated[Callable[[int], Any] | None, "called with each"] = None
    thing: Annotated[Thing | None, "what it holds"] = None
    age: Annotated[float, seconds(above=False), "how old it is"] = 0


class Owner:
    @takes(Full)
    def declare(self, *arguments: Any, **values: Any) -> Full:
        """Declares."""
        return make(Full, arguments, values, "owner")


WRONG = [
    ({"size": 0}, "owner > size=0: expected a whole number from 1 to 10 (messages)"),
    ({"size": True}, "owner > size=True: expected a whole number from 1 to 10 (messages)"),
    ({"size": None}, "owner > size=None: expected a whole number from 1 to 10 (messages)"),
    ({"wait": 0}, "owner > wait=0: expected a number of seconds, more than 0, or None"),
    (
        {"wait": float("nan")},
        "owner > wait=nan: expected a number of seconds, more than 0, or None",
    ),
    ({"flag": "no"}, "owner > flag='no': expected True or False"),
    ({"mode": "slow"}, 'owner > mode=\'slow\': expected "fast" or "safe"'),
    ({"hook": 5}, "owner > hook=5: expected a function, a plain def, or None"),
    ({"thing": 5}, "owner > thing=5: expected a Thing(...), or None"),
    ({"age": -1}, "owner > age=-1: expected a number of seconds, at least 0"),
    ({"name": ""}, "owner > name='': expected a string of 1 to 255 bytes"),
    (
        {"sise": 5},
        "owner > sise=5: there is no such option; did you mean size?",
    ),
    (
        {"velocity": 5},
        "owner > velocity=5: there is no such option; there are name, size, wait, flag, m",
    ),
]


@pytest.mark.parametrize(("values", "said"), WRONG, ids=[str(values) for values, _ in WRONG])
def test_wrong_values_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Owner().declare(**{"name": "n"} | values)
    assert str(caught.value).startswith(said)


def test_right_values() -> None:
    thing = Thing()
    made = Owner().declare("n", size=10, wait=0.5, mode="fast", hook=print, thing=thing, age=0)
    assert made == Full("n", size=10, wait=0.5, mode="fast", hook=print, thing=thing, age=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "missing a required argument: 'name'"),
        (("a", 5), "5 is one argument too many; write the name of the option that it is for: size"),
    ],
)
def test_calls_that_no_function_takes(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(TypeError, match=f"owner: {said}"):
        Owner().declare(*arguments)


def test_without_a_path_the_option_is_named_first() -> None:
    with pytest.raises(ConfigurationError, match=r"^size=0: expected a whole number from 1 to 10"):
        make(Shared, (), {"size": 0})
    assert bind(Shared, (), {"size": 0}).size == 0


def test_the_signature() -> None:
    signature = inspect.signature(Owner.declare)
    assert [*signature.parameters] == [
        "self", "name", "size", "wait", "flag", "mode", "hook", "thing", "age",
    ]  # fmt: skip
    size = signature.parameters["size"]
    assert (size.default, size.annotation, size.kind) == (5, int, inspect.Parameter.KEYWORD_ONLY)
    assert signature.parameters["name"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert signature_of(Shared).parameters.keys() == {"size", "wait", "flag"}


def test_the_list() -> None:
    assert Owner.declare.__doc__ is not None
    assert Owner.declare.__doc__.startswith("Declares.\n\n- `name`: what it is called (a name)\n")
    size = "- `size`: how many at once (a whole number from 1 to 10 (messages); 5 by default)"
    assert next(iter(listed(Shared))) == size


def test_a_part_of_the_options() -> None:
    assert part(Shared, Full("n", size=7, flag=True)) == Shared(size=7, flag=True)


def test_options_as_data() -> None:
    options = options_of(Full)
    assert (options["name"].default, options["name"].positional) == (required, True)
    assert (options["wait"].optional, options["size"].optional) == (True, False)


def test_a_field_must_say_everything() -> None:
    @dataclass
    class Mute:
        size: Annotated[int, whole(1)] = 1

    @dataclass
    class Vague:
        size: Annotated[int, "how many"] = 1

    with pytest.raises(TypeError, match=r"Mute.size: write one sentence"):
        options_of(Mute)
    with pytest.raises(TypeError, match=r"Vague.size: <class 'int'> is not a rule by itself"):
        options_of(Vague)
