#!/usr/bin/env python3
"""Install and run real RabbitMQ brokers for the tests, without Docker.

Each broker is a Debian package in a Debian folder of its own (debootstrap), so
nothing is installed on the machine itself and no service manager interferes:

    python3 tests/brokers/rabbitmq.py up                    3.10 and 4.0
    python3 tests/brokers/rabbitmq.py up 4.3 cluster        the optional ones too
    python3 tests/brokers/rabbitmq.py up --fresh 4.0        again, with empty data
    python3 tests/brokers/rabbitmq.py status
    python3 tests/brokers/rabbitmq.py down [4.0 ...]

`up` may be repeated at any time. Where the brokers listen is written to
build/brokers.json of this clone (tests/conftest.py reads it). Root is needed for
chroot. Standard library only: this runs before any virtual environment exists.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parents[2]
RECORD = CLONE / "build" / "brokers.json"
CACHE = Path(os.environ.get("TESTS_BROKER_CACHE", "/var/cache/flowstream-brokers"))
TLS = CACHE / "tls"
MIRROR = os.environ.get("TESTS_DEBIAN_MIRROR", "http://deb.debian.org/debian")
# Added to every port and to the node names: two sets of brokers can run side by side.
SHIFT = int(os.environ.get("TESTS_BROKER_SHIFT", "0"))
START_DEADLINE = 180.0
CLIENT_NAME = "flowstream-client"  # common name of the client certificate, and a user
TOKEN_AUDIENCE = "flowstream-tests"
PLUGINS = (
    "rabbitmq_auth_backend_oauth2",
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_management",
    "rabbitmq_prometheus",
    "rabbitmq_stream",
    "rabbitmq_stream_management",
)


@dataclass(frozen=True)
class Node:
    """One broker process; every port follows from its stream port."""

    label: str
    base: int

    @property
    def name(self) -> str:
        return f"flowstream-{self.label}-{SHIFT}@localhost"

    @property
    def stream(self) -> int:
        return self.base + SHIFT

    @property
    def stream_tls(self) -> int:
        return self.stream + 1000

    @property
    def amqp(self) -> int:
        return self.stream + 2000

    @property
    def management(self) -> int:
        return self.stream + 10000

    @property
    def prometheus(self) -> int:
        return self.stream + 11000

    @property
    def distribution(self) -> int:
        return self.stream + 20000

    @property
    def folders(self) -> dict[str, str]:
        """Where the node keeps its things, as seen inside its Debian."""
        return {
            "config": f"/etc/rabbitmq/{self.name}",
            "data": f"/var/lib/rabbitmq/{self.name}",
            "log": f"/var/log/rabbitmq/{self.name}",
        }


@dataclass(frozen=True)
class Broker:
    """One entry of the table below."""

    suite: str  # the Debian release whose package it is
    nodes: tuple[Node, ...]
    optional: bool = False  # Debian unstable moves: its absence is told, not an error

    @property
    def root(self) -> Path:
        return CACHE / self.suite


BROKERS = {
    "3.10": Broker("bookworm", (Node("310", 5610),)),
    "4.0": Broker("trixie", (Node("40", 5640),)),
    "4.3": Broker("sid", (Node("43", 5643),), optional=True),
    "cluster": Broker("trixie", (Node("c1", 5651), Node("c2", 5652), Node("c3", 5653))),
}
DEFAULT = ("3.10", "4.0")


class Unavailable(Exception):
    """A broker cannot be had; the message is the reason, for people."""


# -- the Debian folders --------------------------------------------------------------


def run(*command: str | Path, log: Path | None = None) -> None:
    """Run a command to its end; its output is shown only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if log is not None:
        log.write_text(done.stdout)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise Unavailable(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{tail}")


def install(broker: Broker) -> None:
    """Make the Debian folder, whole or not at all; a finished one is kept."""
    if not broker.root.exists():
        bootstrap(broker)
    # What a process in the folder needs of the machine: /proc, and localhost by name.
    proc = broker.root / "proc"
    if not proc.is_mount():
        run("mount", "-t", "proc", "proc", proc)
    shutil.copy("/etc/hosts", broker.root / "etc" / "hosts")


def bootstrap(broker: Broker) -> None:
    print(f"debian {broker.suite}: installing into {broker.root} (about a minute)", flush=True)
    partial = broker.root.with_suffix(".partial")
    remove_folder(partial)
    run(
        *("debootstrap", "--variant=minbase", "--include=rabbitmq-server,procps"),
        *(broker.suite, partial, MIRROR),
        log=CACHE / f"{broker.suite}.log",
    )
    partial.rename(broker.root)


def install_tools() -> None:
    """debootstrap and openssl, from the machine's own package manager."""
    if shutil.which("debootstrap") and shutil.which("openssl"):
        return
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update")
    run("apt-get", "install", "-y", "--no-install-recommends", "debootstrap", "openssl")


def remove_folder(folder: Path) -> None:
    """Delete a folder, refusing to follow what an interrupted run left mounted in it."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        mounted = line.split()[1]
        if mounted.startswith(f"{folder}/"):
            run("umount", mounted)
    if folder.exists():
        shutil.rmtree(folder)


# -- certificates --------------------------------------------------------------------


def make_certificates() -> None:
    """A throw-away authority, a server certificate for localhost, a client certificate."""
    if (TLS / "client.pem").exists():
        return
    shutil.rmtree(TLS, ignore_errors=True)
    making = TLS.with_suffix(".partial")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    new_key = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-sha256")
    run(
        *new_key,
        *("-x509", "-subj", "/CN=flowstream test CA", "-addext", "keyUsage=critical,keyCertSign"),
        *("-keyout", making / "ca.key", "-out", making / "ca.pem"),
    )
    for who, subject, usage in (
        ("server", "localhost", "serverAuth"),
        ("client", CLIENT_NAME, "clientAuth"),
    ):
        run(
            *new_key,
            *("-x509", "-CA", making / "ca.pem", "-CAkey", making / "ca.key"),
            *("-subj", f"/CN={subject}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", f"extendedKeyUsage={usage}"),
            *("-keyout", making / f"{who}.key", "-out", making / f"{who}.pem"),
        )
    making.rename(TLS)


# -- nodes ---------------------------------------------------------------------------


def configuration(broker: Broker, node: Node) -> str:
    """rabbitmq.conf of one node."""
    config = node.folders["config"]
    lines = [
        f"listeners.tcp.default = {node.amqp}",
        f"stream.listeners.tcp.1 = {node.stream}",
        f"stream.listeners.ssl.1 = {node.stream_tls}",
        "stream.advertised_host = localhost",
        f"stream.advertised_port = {node.stream}",
        "stream.advertised_tls_host = localhost",
        f"stream.advertised_tls_port = {node.stream_tls}",
        f"management.tcp.port = {node.management}",
        f"prometheus.tcp.port = {node.prometheus}",
        "loopback_users.guest = false",
        # One TLS port for both: a client certificate is checked when there is one.
        f"ssl_options.cacertfile = {config}/ca.pem",
        f"ssl_options.certfile = {config}/server.pem",
        f"ssl_options.keyfile = {config}/server.key",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
        "auth_mechanisms.1 = PLAIN",
        "auth_mechanisms.2 = AMQPLAIN",
        "auth_mechanisms.3 = EXTERNAL",
        "ssl_cert_login_from = common_name",
        # A password that is no user's may be an OAuth 2.0 token, signed with the server's key.
        "auth_backends.1 = internal",
        "auth_backends.2 = rabbit_auth_backend_oauth2",
        f"auth_oauth2.resource_server_id = {TOKEN_AUDIENCE}",
        f"auth_oauth2.signing_keys.tests = {config}/tokens.pem",
        "auth_oauth2.default_key = tests",
    ]
    if len(broker.nodes) > 1:
        lines.append("cluster_formation.peer_discovery_backend = classic_config")
        lines += [
            f"cluster_formation.classic_config.nodes.{number} = {peer.name}"
            for number, peer in enumerate(broker.nodes, 1)
        ]
    return "\n".join(lines) + "\n"


def allow_many_files(root: Path) -> None:
    """Let brokers open as many files as this process may: each stream takes two and more.

    `rabbitmq-server` changes its user with `su`, which sets the limit to 1,024 where nothing is
    configured.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    limits = root / "etc/security/limits.d"
    limits.mkdir(parents=True, exist_ok=True)
    (limits / "flowstream.conf").write_text(f"rabbitmq soft nofile {files}\n")


def start(broker: Broker, node: Node) -> subprocess.Popen[bytes]:
    """Start one node in the background; `wait_until_up` tells when it is there."""
    allow_many_files(broker.root)
    inside = {kind: broker.root / path[1:] for kind, path in node.folders.items()}
    for folder in inside.values():
        folder.mkdir(parents=True, exist_ok=True)
    config = inside["config"]
    (config / "rabbitmq.conf").write_text(configuration(broker, node))
    (config / "enabled_plugins").write_text(f"[{','.join(PLUGINS)}].\n")
    for name in ("ca.pem", "server.pem", "server.key"):
        shutil.copy(TLS / name, config / name)
    run("openssl", "pkey", "-pubout", "-in", TLS / "server.key", "-out", config / "tokens.pem")
    run("chroot", broker.root, "chown", "-R", "rabbitmq:rabbitmq", *node.folders.values())
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/var/lib/rabbitmq",
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": node.name,
        "RABBITMQ_DIST_PORT": str(node.distribution),
        "RABBITMQ_CONFIG_FILE": f"{node.folders['config']}/rabbitmq.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{node.folders['config']}/enabled_plugins",
        "RABBITMQ_MNESIA_DIR": node.folders["data"],
        "RABBITMQ_LOG_BASE": node.folders["log"],
        # The nodes share the cores with the tests, so their schedulers do not wait busily:
        # https://www.rabbitmq.com/docs/runtime#cpu
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    if len(broker.nodes) > 1:
        environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += " +S 1:1"
    with (inside["log"] / "output.log").open("wb") as output:
        return subprocess.Popen(
            ["chroot", broker.root, "rabbitmq-server"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def find_pid(node: Node) -> int | None:
    """The process id of a node's virtual machine, or None when it does not run."""
    wanted = f"RABBITMQ_NODENAME={node.name}".encode()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                process.name.isdigit()
                and (process / "comm").read_text().startswith("beam")
                and wanted in (process / "environ").read_bytes().split(b"\0")
                and b"-noinput" in (process / "cmdline").read_bytes().split(b"\0")
            ):
                return int(process.name)
    return None


def stop(node: Node) -> None:
    """End a node at once: its data is for tests, and crashes are what streams survive."""
    deadline = time.monotonic() + 20
    while (pid := find_pid(node)) is not None:
        if time.monotonic() > deadline:
            raise Unavailable(f"{node.name} (pid {pid}) cannot be ended")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def api(node: Node, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call the management API: GET, or PUT when there is a body."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.management}/api/{path}",
        method="GET" if body is None else "PUT",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        text = response.read()
    return json.loads(text) if text else None


def version(node: Node) -> str | None:
    """The version of a node that answers on all its ports, else None."""
    try:
        for port in (node.stream, node.stream_tls, node.amqp, node.prometheus):
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        overview = api(node, "overview")
    except OSError:  # includes urllib's errors
        return None
    return str(overview["rabbitmq_version"]) if overview["node"] == node.name else None


def wait_until_up(broker: Broker, started: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait for every node, and for the nodes to have found each other."""
    deadline = time.monotonic() + START_DEADLINE
    for node in broker.nodes:
        while version(node) is None or len(api(node, "nodes")) < len(broker.nodes):
            log = broker.root / node.folders["log"][1:]
            process = started.get(node.name)
            if process is not None and process.poll() is not None:
                raise Unavailable(f"{node.name} ended while starting (a port in use?): see {log}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{node.name} did not start in {START_DEADLINE:.0f} s: see {log}")
            time.sleep(0.5)


def ensure(broker: Broker, installing: Future[None], fresh: bool) -> None:
    """Start and wait; with `fresh`, from empty data."""
    installing.result()
    if fresh:
        take_down(broker)
        for node in broker.nodes:
            shutil.rmtree(broker.root / node.folders["data"][1:], ignore_errors=True)
    down = [node for node in broker.nodes if find_pid(node) is None]
    wait_until_up(broker, {node.name: start(broker, node) for node in down})
    first = broker.nodes[0]
    api(first, f"users/{CLIENT_NAME}", {"password_hash": "", "tags": "administrator"})
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    api(first, f"permissions/%2F/{CLIENT_NAME}", everything)


def take_down(broker: Broker) -> None:
    for node in broker.nodes:
        stop(node)


# -- what the tests read -------------------------------------------------------------


def streams_command(broker: Broker) -> tuple[str, ...]:
    """rabbitmq-streams, which Debian does not put on the path, as the user who has the cookie."""
    return (
        *("chroot", "--userspec=rabbitmq:rabbitmq", str(broker.root)),
        *("env", "HOME=/var/lib/rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-streams"),
    )


def describe(broker: Broker, node: Node) -> dict[str, Any]:
    """One node in build/brokers.json."""
    return {
        "node": node.name,
        "version": version(node),
        "url": f"rabbitmq-stream://guest:guest@localhost:{node.stream}/%2f",
        "tls_url": f"rabbitmq-stream+tls://guest:guest@localhost:{node.stream_tls}/%2f",
        "management": f"http://guest:guest@localhost:{node.management}",
        "prometheus": f"http://localhost:{node.prometheus}/metrics",
        "amqp_port": node.amqp,
        "pid": find_pid(node),
        "ctl": ["chroot", str(broker.root), "rabbitmqctl", "-n", node.name],
        "streams": [*streams_command(broker), "-n", node.name],
        "log": str(broker.root / node.folders["log"][1:] / f"{node.name}.log"),
    }


def write_record() -> None:
    """Write down every broker that answers now, whole or not at all."""
    record = {
        "tls": {
            "ca": str(TLS / "ca.pem"),
            "client_certificate": str(TLS / "client.pem"),
            "client_key": str(TLS / "client.key"),
            "client_name": CLIENT_NAME,
            "server_key": str(TLS / "server.key"),
        },
        "brokers": {
            name: [describe(broker, node) for node in broker.nodes]
            for name, broker in BROKERS.items()
            if all(version(node) for node in broker.nodes)
        },
    }
    RECORD.parent.mkdir(exist_ok=True)
    partial = RECORD.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.replace(RECORD)


def print_status() -> None:
    for name, broker in BROKERS.items():
        for node in broker.nodes:
            found = version(node)
            state = f"RabbitMQ {found}, pid {find_pid(node)}" if found else "down"
            print(f"{name:8} stream {node.stream}  tls {node.stream_tls}  amqp {node.amqp}", end="")
            print(f"  management {node.management}  prometheus {node.prometheus}  {state}")


# -- commands ------------------------------------------------------------------------


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run of this script at a time on a machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(names: list[str], fresh: bool) -> int:
    """Bring the named brokers up; the exit code counts the required ones that are not."""
    install_tools()
    make_certificates()
    brokers = {name: BROKERS[name] for name in names}
    with ThreadPoolExecutor(max_workers=2 * len(BROKERS)) as pool:
        suites = {broker.suite: broker for broker in brokers.values()}
        installs = {suite: pool.submit(install, broker) for suite, broker in suites.items()}
        jobs = {
            name: pool.submit(ensure, broker, installs[broker.suite], fresh)
            for name, broker in brokers.items()
        }
    missing = 0
    for name, job in jobs.items():
        reason = job.exception()
        if isinstance(reason, (Unavailable, OSError)):
            kind = "optional" if brokers[name].optional else "REQUIRED"
            print(f"{name}: not available ({kind}): {reason}", file=sys.stderr)
            missing += not brokers[name].optional
        else:
            job.result()
    write_record()
    print_status()
    return min(missing, 1)


def down(names: list[str]) -> int:
    for name in names:
        take_down(BROKERS[name])
    write_record()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Real RabbitMQ brokers for the tests.")
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("brokers", nargs="*", metavar="broker", help=", ".join(BROKERS))
    parser.add_argument("--fresh", action="store_true", help="stop first, start with empty data")
    arguments = parser.parse_intermixed_args()
    if unknown := set(arguments.brokers) - set(BROKERS):
        parser.error(f"unknown broker {', '.join(unknown)}: choose from {', '.join(BROKERS)}")
    if arguments.command == "status":
        print_status()
        return 0
    if os.geteuid() != 0:
        print("rabbitmq.py needs root (chroot); or use: docker compose up -d", file=sys.stderr)
        return 1
    with alone():
        if arguments.command == "down":
            return down(arguments.brokers or list(BROKERS))
        return up(arguments.brokers or list(DEFAULT), arguments.fresh)


if __name__ == "__main__":
    sys.exit(main())
