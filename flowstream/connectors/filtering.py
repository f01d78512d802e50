"""What to leave out of a stream, decided by the broker chunk by chunk and here by message."""

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

    The broker leaves out chunks without those values, and a chunk that is left can hold other
    messages: `match` has to tell. `unfiltered` lets messages without a filter value pass too.
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
