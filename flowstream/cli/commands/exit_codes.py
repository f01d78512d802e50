"""`flowstream exit-codes`: the table of exit codes."""

from __future__ import annotations

from typing import Final

from flowstream.cli.exit_codes import MEANINGS
from flowstream.cli.output.console import print_json
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json

app: Final = new_app()


@app.command("exit-codes", epilog=examples("flowstream exit-codes", "flowstream exit-codes --json"))
def exit_codes(json: Json = False) -> None:
    """List the exit codes of every command with their meanings."""
    rows = [{"code": int(code), "meaning": meaning} for code, meaning in MEANINGS.items()]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["code", "meaning"], empty="")
