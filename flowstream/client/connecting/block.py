"""The `async with` block of a publisher or consumer, outside of which it cannot be used."""

from __future__ import annotations

from flowstream.errors import ConfigurationError


class Block:
    """Knows whether the block was entered, which can be done once.

    Outside of it nothing would publish or read, so whoever used the object would wait endlessly.
    """

    __slots__ = ("_what", "entered")

    def __init__(self, what: str) -> None:
        self._what = what
        self.entered: bool = False

    def enter(self) -> None:
        """Notes that the block begins; raises if it has begun before."""
        if self.entered:
            raise ConfigurationError(
                f"{self._what} was entered before: make a new one for each `async with` block"
            )
        self.entered = True

    def check(self) -> None:
        """Raises if the block was not entered."""
        if not self.entered:
            raise ConfigurationError(
                f"{self._what} is not open: use it inside its `async with` block"
            )
