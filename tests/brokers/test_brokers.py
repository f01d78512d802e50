"""The real brokers are what the other tests take them for."""

import socket
import ssl
import urllib.parse

import pytest

from tests.brokers.running import Broker, Certificates


def test_is_the_version_that_was_asked_for(rabbitmq: Broker) -> None:
    assert ".".join(map(str, rabbitmq.version)).startswith(rabbitmq.name + ".")
    assert rabbitmq.api("GET", "overview")["node"] == rabbitmq.node


def test_tells_its_status_on_the_command_line(rabbitmq: Broker) -> None:
    assert "rabbitmq_stream" in rabbitmq.ctl("status")


@pytest.mark.parametrize("mutual", [False, True])
def test_speaks_tls(rabbitmq: Broker, certificates: Certificates, mutual: bool) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    if mutual:
        context.load_cert_chain(certificates.client_certificate, certificates.client_key)
    port = urllib.parse.urlsplit(rabbitmq.tls_url).port
    with (
        socket.create_connection(("localhost", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        assert encrypted.version() == "TLSv1.3"


def test_streams_of_a_test_are_deleted_after_it(rabbitmq: Broker, stream_name: str) -> None:
    arguments = {"durable": True, "arguments": {"x-queue-type": "stream"}}
    for name in (stream_name, f"{stream_name}.dead"):
        rabbitmq.api("PUT", f"queues/%2F/{name}", arguments)
    rabbitmq.remove(stream_name)
    names = {queue["name"] for queue in rabbitmq.api("GET", "queues/%2F?columns=name")}
    assert not {stream_name, f"{stream_name}.dead"} & names


def test_cluster_has_three_nodes(cluster: tuple[Broker, ...]) -> None:
    for node in cluster:
        assert {peer["name"] for peer in node.api("GET", "nodes")} == {n.node for n in cluster}
