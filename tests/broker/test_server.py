"""The broker as a server: address, data directory, TLS, many connections; on both backends."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.tls import TLSStream

from flowstream.broker import Broker, BrokerStatistics, Limits
from flowstream.broker.data_dir import LOCK_FILE
from flowstream.errors import ConfigurationError
from flowstream.protocol import (
    Chunk,
    CreateStream,
    CreateSuperStream,
    DeclarePublisher,
    Deliver,
    Metadata,
    MetadataResponse,
    OffsetSpec,
    Partitions,
    PublishConfirm,
    QueryOffset,
    StoreOffset,
    Subscribe,
    encode_publish,
)
from flowstream.testing import broker
from tests.broker.raw import Raw, connected, logged_in

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]


async def publish(raw: Raw, stream: str, *bodies: bytes) -> None:
    await raw.ok(CreateStream(7, stream, {}))
    await raw.ok(DeclarePublisher(8, 0, "p", stream))
    await raw.send(encode_publish(0, 1, bodies))
    assert (await raw.expect(PublishConfirm)).publishing_ids == tuple(range(1, 1 + len(bodies)))


async def consume(raw: Raw, stream: str) -> list[bytes]:
    await raw.ok(Subscribe(9, 0, stream, OffsetSpec.first(), 10, {}))
    return Chunk((await raw.expect(Deliver)).chunk).bodies()


async def test_clients_connect_to_its_url() -> None:
    async with broker() as running:
        assert running.port > 0
        assert running.url == f"rabbitmq-stream://guest:guest@127.0.0.1:{running.port}/%2f"
        async with logged_in(running.url) as raw:
            await raw.ok(CreateStream(7, "s", {}))
            answer = await raw.call(Metadata(8, ("s",)), MetadataResponse)
            assert answer.brokers == {0: ("127.0.0.1", running.port)}


async def test_a_data_directory_keeps_everything(tmp_path: Path) -> None:
    data_dir = tmp_path / "deep" / "data"
    async with broker(data=data_dir) as running, logged_in(running.url) as raw:
        await publish(raw, "s", b"one", b"two")
        await raw.send(StoreOffset("r", "s", 1))
        await raw.ok(CreateSuperStream(9, "super", ("a", "b"), ("0", "1"), {}))
    async with broker(data=data_dir) as running, logged_in(running.url) as raw:
        assert await consume(raw, "s") == [b"one", b"two"]
        offset: Any = await raw.call(QueryOffset(10, "r", "s"), object)
        assert (offset.code, offset.offset) == (1, 1)
        partitions: Any = await raw.call(Partitions(11, "super"), object)
        assert partitions.streams == ("a", "b")


async def test_memory_keeps_nothing() -> None:
    running = Broker(port=0)
    async with running, logged_in(running.url) as raw:
        await publish(raw, "s", b"one")
    async with running, logged_in(running.url) as raw:
        await raw.ok(CreateStream(7, "s", {}))


@pytest.mark.medium
async def test_a_data_directory_has_one_broker_at_a_time(tmp_path: Path) -> None:
    async with broker(data=tmp_path):
        code = (
            "import anyio, pathlib, sys\n"
            "from flowstream.broker import Broker\n"
            "anyio.run(Broker(port=0, data=pathlib.Path(sys.argv[1])).serve)\n"
        )
        other = await anyio.run_process([sys.executable, "-c", code, str(tmp_path)], check=False)
        assert other.returncode == 1
        owner = (tmp_path / LOCK_FILE).read_text().strip()
        assert f"in use by another broker (process {owner})" in other.stderr.decode()


async def test_a_data_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot hold a broker's data"):
        await Broker(port=0, data=tmp_path / "file" / "folder").serve()


async def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tested = Broker(port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="choose another port"):
            await tested.serve()


@pytest.mark.medium
async def test_statistics() -> None:
    running = Broker(port=0)
    assert running.statistics() == BrokerStatistics(0, 0, 0, 0, 0.0, 0.0, 0, 0)
    async with running, logged_in(running.url) as raw:
        await publish(raw, "s", b"one", b"two")
        await consume(raw, "s")
        now = running.statistics()
        assert (now.connections, now.streams, now.unconfirmed) == (1, 1, 0)
        assert (now.messages_in, now.messages_out) == (2, 2)
        with anyio.fail_after(5):
            while running.statistics().rate_in == 0:
                await anyio.sleep(0.05)
        assert running.statistics().bytes_used > 0
    after = running.statistics()
    assert (after.connections, after.messages_in, after.messages_out) == (0, 2, 2)


async def test_own_users() -> None:
    async with broker(users={"ann": "secret"}, limits=Limits(refusal_delay=0)) as running:
        assert running.url.startswith("rabbitmq-stream://ann:secret@")
        async with connected(running.url) as raw:
            with pytest.raises(AssertionError, match="None instead of Tune"):
                await raw.log_in()
        async with connected(running.url) as raw:
            await raw.log_in(data=b"\0ann\0secret")
            await raw.ok(CreateStream(7, "s", {}))


@pytest.mark.slow
async def test_five_hundred_idle_connections() -> None:
    async with broker() as running:
        async with anyio.create_task_group() as tasks:
            opened = 0

            async def idle() -> None:
                nonlocal opened
                async with logged_in(running.url):
                    opened += 1
                    await anyio.sleep_forever()

            for _ in range(500):
                tasks.start_soon(idle)
            with anyio.fail_after(30):
                while opened < 500:
                    await anyio.sleep(0.01)
            assert running.statistics().connections == 500
            async with logged_in(running.url) as raw:
                with anyio.fail_after(5):
                    await publish(raw, "s", b"still quick")
            tasks.cancel_scope.cancel()
        with anyio.fail_after(10):
            while running.statistics().connections:
                await anyio.sleep(0.01)


async def test_it_stops_while_clients_publish(tmp_path: Path) -> None:
    with anyio.fail_after(10):
        async with broker(data=tmp_path) as running:
            raw = await Raw.connect(running.url)
            await raw.log_in()
            await raw.ok(CreateStream(7, "s", {}))
            await raw.ok(DeclarePublisher(8, 0, None, "s"))
            for first in range(0, 20_000, 1000):
                await raw.send(encode_publish(0, first, [b"x" * 100] * 1000))
        while await raw.next() is not None:
            pass
        await raw.stream.aclose()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = path.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


async def test_tls(certificate: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate)
    async with Broker(port=0, tls=server) as running:
        assert running.url.startswith("rabbitmq-stream+tls://")
        async with await anyio.connect_tcp("127.0.0.1", running.port) as plain:
            await plain.send(b"no TLS at all, and quite some of it" * 10)
            assert await Raw(plain).next() is None
        stream = await anyio.connect_tcp(
            "127.0.0.1", running.port, tls=True, ssl_context=client, tls_standard_compatible=False
        )
        assert isinstance(stream, TLSStream)
        async with stream:
            raw = Raw(stream)
            await raw.log_in()
            await publish(raw, "s", *[b"x" * 1000] * 500)
            assert await consume(raw, "s") == [b"x" * 1000] * 500


async def test_a_name_for_several_addresses() -> None:
    async with Broker("localhost", 0) as running:
        assert running.url == f"rabbitmq-stream://guest:guest@localhost:{running.port}/%2f"
        async with logged_in(running.url) as raw:
            await raw.ok(CreateStream(7, "s", {}))


async def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with Broker("::1", 0) as running:
        assert running.url == f"rabbitmq-stream://guest:guest@[::1]:{running.port}/%2f"
        async with logged_in(running.url) as raw:
            await raw.ok(CreateStream(7, "s", {}))
