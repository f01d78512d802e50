"""`flowstream exit-codes`: the table of exit codes."""

from __future__ import annotations

from flowstream.cli.exit_codes import MEANINGS
from flowstream.cli.output.console import print_json
from flowstream.cli.output.tables import print_rows


def exit_codes(json: bool) -> None:
    rows = [{"code": int(code), "meaning": meaning} for code, meaning in MEANINGS.items()]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["code", "meaning"], empty="")
