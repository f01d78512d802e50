"""What the connectors' tests share."""

from __future__ import annotations

import pydantic
import pytest


@pytest.fixture(scope="session", autouse=True)
def plugins_of_pydantic() -> None:
    """Pydantic looks for them, blocking, with its first schema; these tests declare in a loop."""
    pydantic.TypeAdapter(dict[str, int])
