"""What to leave out of a stream, decided by the broker chunk by chunk and here by message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowstream.errors import ConfigurationError


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
        if not self.values or type(self.values) is not tuple:
            raise ConfigurationError("Filter > values: expected a tuple of one or more strings")
        if not callable(self.match):
            raise ConfigurationError("Filter > match: expected a function of the body")
