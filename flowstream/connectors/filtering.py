"""Filters of a stream: the broker leaves out chunks, and the client leaves out messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from flowstream.schema import FILTER_VALUE, Rule, check, listing

VALUES = Rule(
    "a tuple of one or more strings",
    lambda value: type(value) is tuple and bool(value),
)


@listing
@dataclass(frozen=True, slots=True)
class Filter:
    """Messages published with one of the filter `values`, and for which `match(body)` is true.

    The broker leaves out chunks without those values. The other chunks may hold more messages, so
    `match` decides for each body. `unfiltered` lets messages without a filter value pass, too.
    """

    values: Annotated[tuple[str, ...], VALUES, "the filter values that are wanted"]
    match: Annotated[Callable[[bytes], bool], "whether a body is wanted"]
    unfiltered: Annotated[bool, "whether messages without a filter value are wanted"] = False

    def __post_init__(self) -> None:
        check(self, "Filter")
        for value in self.values:
            FILTER_VALUE.check("Filter > values", value)

    @property
    def options(self) -> dict[str, Any]:
        """The options of a consumer or a lag probe."""
        return {
            "filter_values": self.values,
            "match": self.match,
            "match_unfiltered": self.unfiltered,
        }
