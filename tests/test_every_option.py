"""Every option of every schema refuses what it cannot be, with an error of one form.

The schemas are found by walking the package, and the wrong values follow from each option's rule
and type: whoever adds an option is tested here without a line.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import typing
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowstream
from flowstream.cli.exit_codes import ExitCode, exit_code
from flowstream.errors import ConfigurationError
from flowstream.schema import ANYTHING, Bounds, Option, options_of, required

NAN, INF = float("nan"), float("inf")


class Unprintable:
    """A value of no kind, whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


async def awaited(*arguments: Any) -> None:
    """What nobody awaits, if it is called as a plain function."""


def schemas() -> Iterator[type]:
    """Every dataclass of the package whose fields say what an option is."""
    seen = set()
    for module in pkgutil.walk_packages(flowstream.__path__, "flowstream."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if dataclasses.is_dataclass(value) and isinstance(value, type) and value not in seen:
                seen.add(value)
                if any(typing.get_origin(hint) is Annotated for hint in _hints(value)):
                    yield value


def _hints(kind: type) -> list[Any]:
    try:
        return [*typing.get_type_hints(kind, include_extras=True).values()]
    except NameError:  # types that are imported for type checkers only
        return []


SCHEMAS = sorted(schemas(), key=lambda kind: kind.__qualname__)
OPTIONS = [
    pytest.param(option, id=f"{kind.__name__}.{option.name}")
    for kind in SCHEMAS
    for option in options_of(kind).values()
    if option.rule is not ANYTHING
]


def wrong(option: Option) -> Iterator[Any]:
    """Values that the option cannot have, by its rule and type."""
    yield Unprintable()
    if not option.optional:
        yield None
    rule = option.rule
    if isinstance(rule, Bounds):
        yield from ("1", b"1", True, False, NAN, INF, -INF, rule.least - 1, 10**400, [1])
        yield rule.most + 1 if rule.whole else rule.most * 1.01
        if rule.whole:
            yield from (1.5, float(rule.least + 1))
        if rule.above:
            yield rule.least
        return
    plain = option.type
    if option.optional:
        plain = next(each for each in typing.get_args(plain) if each is not type(None))
    if plain is bool:
        yield from (0, 1, "yes", "no", "", [], NAN)
    if plain is str:
        yield from (5, True, b"text", ["text"], NAN)
    if typing.get_origin(plain) is typing.Literal:
        right = typing.get_args(plain)
        yield from (each for each in ("other", 5, True, False) if each not in right)
        yield ["first"]
    if isinstance(plain, type) and plain.__module__ != "builtins":
        yield from (5, True, "other", [], NAN)
    if typing.get_origin(plain) is Callable or getattr(plain, "__origin__", None) is Callable:
        yield from (5, True, "function", [])
        if typing.get_origin(typing.get_args(plain)[-1]) is not Awaitable:
            yield from (awaited, partial(awaited))


def refused(option: Option, value: Any, path: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        option.check(value, path)
    assert exit_code(caught.value) is ExitCode.DECLARATION
    return str(caught.value)


def form(option: Option, path: str) -> str:
    """`PLACE > option=value: what is allowed`; the value of a secret is not shown."""
    place = re.escape(f"{path} > {option.name}") if path else re.escape(option.name)
    shows = "" if option.rule.secret else "(=.+?| > initial=.+?)"
    return rf"{place}{shows}: \S.*\Z"


def test_the_schemas_are_found() -> None:
    names = {kind.__name__ for kind in SCHEMAS}
    assert names >= {
        *("PipelineArguments", "ProcessorOptions", "BatcherOptions", "SinkArguments", "Retry"),
        *("StreamProducerArguments", "SuperStreamProducerArguments", "StreamSinkArguments"),
        *("IterableProducerArguments", "RateLimit", "DeadLetter", "Filter", "Backoff", "Tls"),
        *("EnvironmentArguments", "PublisherArguments", "ConsumerArguments", "AutoTracking"),
        *("CreateStreamArguments", "CreateSuperStreamArguments", "PipelineTesterArguments"),
    }
    assert len(OPTIONS) > 200


@pytest.mark.parametrize("option", OPTIONS)
def test_wrong_values_are_refused_in_one_form(option: Option) -> None:
    for path in ("", "pipeline 'orders' > batcher 'prices'"):
        for value in wrong(option):
            said = refused(option, value, path)
            assert re.match(form(option, path), said), said
            assert len(said.splitlines()) == 1
    if option.optional:
        option.check(None)


@pytest.mark.parametrize("kind", SCHEMAS, ids=lambda kind: kind.__name__)
def test_defaults_pass(kind: type) -> None:
    for option in options_of(kind).values():
        if option.default is not required:
            option.check(option.default)


NUMBERS = [
    option
    for kind in SCHEMAS
    for option in options_of(kind).values()
    if isinstance(option.rule, Bounds)
]


@given(st.sampled_from(NUMBERS), st.one_of(st.integers(), st.floats(), st.booleans()))
def test_a_number_passes_just_inside_its_bounds(option: Option, value: Any) -> None:
    rule = option.rule
    assert isinstance(rule, Bounds)
    kind = isinstance(value, int) or not rule.whole
    inside = rule.least <= value <= rule.most and not (rule.above and value == rule.least)
    if isinstance(value, bool) or not (kind and inside):
        refused(option, value, "")
    elif rule.accepts(value):
        option.check(value)


VALUES = [kind for kind in SCHEMAS if "__post_init__" in vars(kind)]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_what_is_made_by_users_is_checked_when_it_is_made(kind: type) -> None:
    option = next(iter(options_of(kind).values()))
    others = {
        other.name: None
        for other in options_of(kind).values()
        if other.default is required and other is not option
    }
    with pytest.raises(ConfigurationError, match=rf"\b{option.name}\b"):
        kind(**others | {option.name: Unprintable()})


def test_the_first_wrong_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^Backoff > factor=0\.5: "):
        flowstream.Backoff(1, factor=0.5, maximum=-1, jitter=0)
