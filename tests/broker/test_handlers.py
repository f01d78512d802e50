"""The table of handlers is complete."""

from __future__ import annotations

from flowstream.broker.handlers import HANDLERS
from flowstream.protocol.codec import COMMANDS
from flowstream.protocol.connection import TABLE, Role, State


def test_every_command_of_a_client_has_a_handler() -> None:
    may_be_sent = {
        key
        for (role, state), rules in TABLE.items()
        if role is Role.CLIENT and state is not State.CLOSING
        for key in rules
    }
    sent = {
        row.command
        for (key, answer, _), row in COMMANDS.items()
        if (key | (0x8000 if answer else 0)) in may_be_sent
    }
    assert sent <= set(HANDLERS)
