"""The tree of errors is the one that the module draws, and each can be kept and sent."""

from __future__ import annotations

import pickle
import re

import pytest

from flowstream import errors
from flowstream.errors import SERVER_ERRORS, FlowstreamError, ServerError, server_error


def drawn() -> dict[str, str]:
    """Each error of the docstring with the one it is drawn under."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+(?:, [A-Z]\w+)*)", line)
        if found is None:
            continue
        depth = len(found[1])
        while path and path[-1][0] >= depth:
            path.pop()
        names = found[2].split(", ")
        for name in names:
            parents[name] = path[-1][1] if path else ""
        path.append((depth, names[-1]))
    return parents


def every_error() -> list[type[FlowstreamError]]:
    found: list[type[FlowstreamError]] = [FlowstreamError]
    for kind in found:
        found += [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    actual = {
        kind.__name__: next(
            (base.__name__ for base in kind.__bases__ if issubclass(base, FlowstreamError)), ""
        )
        for kind in every_error()
    }
    assert drawn() == actual


def test_every_code_of_the_protocol_gives_its_class() -> None:
    for code, kind in SERVER_ERRORS.items():
        error = server_error(code, "no", stream="orders")
        assert type(error) is kind
        assert (error.code, error.stream) == (code, "orders")
    unknown = server_error(999, "what?")
    assert type(unknown) is ServerError
    assert unknown.code == 999


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_what_an_error_means_is_documented(kind: type[FlowstreamError]) -> None:
    assert kind.__doc__
    assert kind.__doc__.strip()[0].isupper()


def test_an_error_travels_to_another_process_with_its_fields() -> None:
    error = pickle.loads(pickle.dumps(server_error(6, "no", stream="orders", reference="r")))
    assert (type(error), error.code, error.stream) == (type(server_error(6)), 6, "orders")
