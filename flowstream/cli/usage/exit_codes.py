"""`flowstream exit-codes`: arguments, options and help."""

from __future__ import annotations

from typing import Final

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json

app: Final = new_app(work="flowstream.cli.commands.exit_codes")


@app.command("exit-codes", epilog=examples("flowstream exit-codes", "flowstream exit-codes --json"))
def exit_codes(json: Json = False) -> None:
    """List the exit codes of every command with their meanings."""
