"""Every command reaches the broker as it is configured: with TLS, SASL and limits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flowstream.cli.configuration.settings import load
from flowstream.cli.connection import connect
from flowstream.client import ExternalCredentials

ROOM = Path(connect.__file__).parents[1]
TLS_URL = "rabbitmq-stream+tls://guest:guest@localhost:1/%2f"


@pytest.mark.parametrize(
    "file", sorted(ROOM.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOM))
)
def test_only_connect_makes_environments(file: Path) -> None:
    made = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Environment"
    ]
    assert not made or file.name == "connect.py", f"use connect(url): {made[0].lineno}"


def test_what_is_configured_and_flags_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.flowstream]\nheartbeat = 5\ntls_ca = 'a.pem'\ntls_server_name = 'rabbit'\n"
        "sasl = 'EXTERNAL'\n"
    )
    loaded = load(tmp_path)
    monkeypatch.setattr(connect, "settings", lambda: loaded.with_flags({"tls_ca": "b.pem"}))
    found = connect.connection(TLS_URL)
    assert found.options["heartbeat"] == 5
    assert isinstance(found.options["credentials"], ExternalCredentials)
    tls = found.options["tls"]
    assert (tls.ca, tls.server_name, tls.key, tls.verify) == ("b.pem", "rabbit", None, True)
