"""`flowstream exit-codes`: the table of exit codes."""

from __future__ import annotations

from tests.cli.command import flowstream
from tests.cli.rows import TABLE, Bad, Row

ROWS = {
    ("exit-codes",): Row(
        "", r"6 +the stream does not exist", Bad("--jsn", 2, "No such option"),
        drawn=TABLE, document='"meaning": "the stream does not exist, or was deleted while',
        alone=True,
    ),
}  # fmt: skip


def test_exit_codes_are_listed() -> None:
    rows = flowstream("exit-codes", "--json").json
    assert [row["code"] for row in rows] == sorted({row["code"] for row in rows})
    assert {"code": 0, "meaning": rows[0]["meaning"]} == rows[0]
    text = flowstream("exit-codes").out.splitlines()
    assert text[0].split() == ["code", "meaning"]
    assert len(text) == len(rows) + 1
