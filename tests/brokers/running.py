"""The brokers that run now, as the tests see them: what build/brokers.json names and answers."""

from __future__ import annotations

import base64
import functools
import json
import os
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parents[2] / "build" / "brokers.json"
REQUIRED = tuple(filter(None, os.environ.get("TESTS_REQUIRE_BROKERS", "").split(",")))
"""The brokers that must take part: a run without one of them fails."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of the throw-away certificates; `client_name` is the user of the client's."""

    ca: str
    client_certificate: str
    client_key: str
    client_name: str
    server_key: str


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker process. What only a real RabbitMQ has is None on the embedded one."""

    name: str  # "3.10", "4.0", "4.3", "cluster", "embedded"
    version: tuple[int, ...]
    url: str
    tls_url: str | None = None
    management: str | None = None
    prometheus: str | None = None
    amqp_port: int | None = None
    pid: int | None = None
    ctl_command: tuple[str, ...] = ()
    streams_command: tuple[str, ...] = ()
    node: str = ""
    log: str | None = None

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).hostname or "localhost"

    @property
    def port(self) -> int:
        port = urllib.parse.urlsplit(self.url).port
        assert port is not None, self.url
        return port

    def answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=2).close()
        except OSError:
            return False
        return True

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl ARGUMENTS` on this node; its output, or CalledProcessError."""
        return _output(self.ctl_command, arguments)

    def streams(self, *arguments: str) -> str:
        """Run `rabbitmq-streams ARGUMENTS` on this node; its output, or CalledProcessError."""
        return _output(self.streams_command, arguments)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the management API (`path` follows /api/); HTTPError tells a refusal."""
        assert self.management is not None, f"{self.name} has no management API"
        address = urllib.parse.urlsplit(self.management)
        secret = base64.b64encode(f"{address.username}:{address.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://{address.hostname}:{address.port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read()
        return json.loads(text) if text else None

    def remove(self, prefix: str) -> None:
        """Delete every stream and super stream whose name begins with `prefix`."""
        # Bindings, since each queue has one to the default exchange: 3.10 answers 500 to the list
        # of queues and to the definitions while another test deletes a stream.
        queues = {
            binding["destination"]
            for binding in self.api("GET", "bindings/%2F")
            if binding["destination_type"] == "queue"
        }
        exchanges = {exchange["name"] for exchange in self.api("GET", "exchanges/%2F")}
        for kind, names in (("queues", queues), ("exchanges", exchanges)):
            for name in names:
                if name.startswith(prefix):
                    self.api("DELETE", f"{kind}/%2F/{urllib.parse.quote(name, safe='')}")


def _output(command: tuple[str, ...], arguments: tuple[str, ...]) -> str:
    assert command, "only a real RabbitMQ has command-line tools"
    return subprocess.run(
        [*command, *arguments], check=True, capture_output=True, text=True, timeout=100
    ).stdout


def _record() -> dict[str, Any]:
    if not RECORD.exists():
        return {"brokers": {}}
    record: dict[str, Any] = json.loads(RECORD.read_text())
    return record


@functools.cache
def running() -> dict[str, tuple[Broker, ...]]:
    """The nodes of every recorded broker that answers now, by the broker's name."""
    found = {
        name: tuple(
            Broker(
                name=name,
                version=tuple(int(part) for part in node["version"].split(".")[:3]),
                ctl_command=tuple(node["ctl"]),
                streams_command=tuple(node["streams"]),
                **{
                    field: node[field]
                    for field in (
                        *("url", "tls_url", "management", "prometheus"),
                        *("amqp_port", "pid", "node", "log"),
                    )
                },
            )
            for node in nodes
        )
        for name, nodes in _record()["brokers"].items()
    }
    return {name: nodes for name, nodes in found.items() if all(node.answers() for node in nodes)}


def certificates() -> Certificates | None:
    """The certificates of the brokers' TLS ports, if brokers were started here."""
    tls = _record().get("tls")
    return None if tls is None else Certificates(**tls)
