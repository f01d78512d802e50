"""`flowstream doctor`: this machine and the broker, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.brokers.running import Broker, Certificates
from tests.cli.command import Terminal, flowstream
from tests.cli.rows import TABLE, Bad, Row

ROWS = {
    ("doctor",): Row(
        "", r"ok +broker +login +PLAIN as guest",
        Bad("no-such-stream", 24, "flowstream streams create no-such-stream"),
        drawn=TABLE, document='"check": "login"',
        waiting="",
    ),
}  # fmt: skip


def by_check(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in rows}


@pytest.mark.every_broker
def test_a_broker_that_is_well(broker: Broker) -> None:
    line = ("doctor", "--json", *management(broker))
    result = flowstream(*line, url=broker.url)
    assert result.code == 0, result.out
    found = by_check(result.json)
    assert {"flowstream", "python", "extra uvloop", "open files"} <= {*found}
    assert found["login"]["detail"] == "PLAIN as guest, virtual host /"
    assert ".".join(map(str, broker.version)) in found["version"]["detail"]
    assert "not encrypted" in found["connection"]["detail"]
    if broker.version < (3, 11):
        assert found["commands"]["result"] == "warn"
    else:
        assert found["filtering"]["detail"].startswith("yes" if broker.version > (3, 13) else "no")
    if broker.management is not None:
        assert found["clock"]["detail"].startswith("within")
    assert [row for row in result.json if row["check"] == "advertised"]


def management(broker: Broker) -> tuple[str, ...]:
    return () if broker.management is None else ("--management", broker.management)


@pytest.mark.slow
def test_on_a_terminal_and_in_a_pipe(broker: Broker) -> None:
    text = flowstream("doctor", url=broker.url)
    assert text.out.splitlines()[0].split() == ["result", "about", "check", "detail"]
    assert "checks" in text.err
    with Terminal("doctor", url=broker.url) as terminal:
        assert terminal.end() == 0
    assert "frame_max" in terminal.screen


def test_the_nodes_of_streams(cluster: tuple[Broker, ...], stream_name: str) -> None:
    url = cluster[0].url
    assert flowstream("streams", "create", stream_name, url=url).code == 0
    rows = flowstream("doctor", stream_name, "--json", url=url).json
    reached = [row["detail"] for row in rows if row["check"] == "advertised"]
    assert len(reached) == len(cluster)
    assert all(detail.endswith("is reachable") for detail in reached)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        (("guest:guest", "guest:wrong"), "login", "guest"),
        (("%2f", "no-such-vhost"), "login", "no-such-vhost"),
        (("rabbitmq-stream://", "rabbitmq-stream+tls://"), "connection", "TLS handshake"),
    ],
)
def test_the_step_that_fails_is_named(
    broker: Broker, change: tuple[str, str], check: str, text: str
) -> None:
    result = flowstream("doctor", "--json", url=broker.url.replace(*change))
    assert result.code == 24
    (found,) = (row for row in result.json if row["result"] == "bad")
    assert (found["check"], text in found["detail"], bool(found["remedy"])) == (check, True, True)


def test_nobody_answers_and_a_stream_is_missing(broker: Broker) -> None:
    refused = flowstream("doctor", "--json", url="rabbitmq-stream://guest:secret@localhost:1")
    assert refused.code == 24
    assert "secret" not in refused.out
    assert by_check(refused.json)["connection"]["remedy"]
    missing = flowstream("doctor", "no-such-stream", "--json", url=broker.url)
    assert missing.code == 24
    assert by_check(missing.json)["stream"]["remedy"] == (
        "flowstream streams create no-such-stream, or super-streams create no-such-stream"
    )


def test_tls_and_a_client_certificate(
    rabbitmq: Broker, certificates: Certificates, tmp_path: Path
) -> None:
    assert rabbitmq.tls_url is not None
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.flowstream]\nurl = "{rabbitmq.tls_url}"\ntls_ca = "{certificates.ca}"\n'
    )
    plain = flowstream("doctor", "--json", cwd=tmp_path)
    assert plain.code == 0, plain.out
    assert "certificate verified" in by_check(plain.json)["connection"]["detail"]
    own = ("--tls-certificate", str(certificates.client_certificate))
    line = ("doctor", "--json", *own, "--tls-key", str(certificates.client_key))
    mutual = flowstream(*line, "--sasl", "external", cwd=tmp_path)
    if rabbitmq.version >= (3, 11):
        assert mutual.code == 0, mutual.out
        assert by_check(mutual.json)["login"]["detail"].startswith("EXTERNAL")
    untrusted = by_check(flowstream("doctor", "--json", url=rabbitmq.tls_url).json)["connection"]
    assert "--tls-ca FILE" in untrusted["detail"]
    assert "FLOWSTREAM_TLS_CA" in untrusted["remedy"]
    unknown = flowstream("doctor", "--json", "--tls-ca", "gone.pem", cwd=tmp_path)
    assert unknown.code == 24
    assert "gone.pem" in by_check(unknown.json)["connection"]["detail"]
