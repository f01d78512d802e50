"""What `flowstream run` does with its options, before pipelines run."""

from __future__ import annotations

import pytest
import typer

from flowstream.cli.running import start


def test_a_message_to_discard() -> None:
    assert start.parse_message("orders-1@42") == ("orders-1", 42)
    with pytest.raises(typer.BadParameter, match="is not STREAM@OFFSET") as caught:
        start.parse_message("orders")
    assert "--discard" in caught.value.format_message()
