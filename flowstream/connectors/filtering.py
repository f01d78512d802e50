"""What to leave out of a stream, decided by the broker chunk by chunk and here by message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowstream.checks import MOST_FILTER_VALUE, check_callable, check_flag, check_text
from flowstream.errors import ConfigurationError
from flowstream.texts import shown


@dataclass(frozen=True, slots=True)
class Filter:
    """Messages published with one of the filter `values`, and for which `match(body)` is true.

    The broker leaves out chunks without those values, and a chunk that is left can hold other
    messages: `match` has to tell. `unfiltered` lets messages without a filter value pass too.
    """

    values: tuple[str, ...]
    match: Callable[[bytes], bool]
    unfiltered: bool = False

    def __post_init__(self) -> None:
        if type(self.values) is not tuple or not self.values:
            raise ConfigurationError(
                f"Filter > values={shown(self.values)}: expected a tuple of one or more strings"
            )
        for value in self.values:
            check_text("Filter > values", value, 0, MOST_FILTER_VALUE)
        check_callable("Filter > match", self.match, needed=True)
        check_flag("Filter > unfiltered", self.unfiltered)

    @property
    def options(self) -> dict[str, Any]:
        """The options of a consumer or a lag probe."""
        return {
            "filter_values": self.values,
            "match": self.match,
            "match_unfiltered": self.unfiltered,
        }
