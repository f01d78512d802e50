"""`flowstream broker`: the embedded broker alone."""

from __future__ import annotations

from tests.cli.rows import Bad, Row

ROWS = {
    ("broker",): Row(
        "--port 0 --memory", r"broker listening on 127\.0\.0\.1:\d+, in memory",
        Bad("--host 0.0.0.0", 2, "give the users who may connect with --user"),
        drawn="0 connections, 0 streams", endless="err",
        alone=True,
    ),
}  # fmt: skip
