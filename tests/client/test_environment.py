"""The environment: addresses, pools by role, nodes, load balancers, healing, admin, credentials."""

from __future__ import annotations

import subprocess
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import pytest

from flowstream.client import Address, Environment, State, Tls, Token, TokenCredentials, offset_spec
from flowstream.client.environment import _dial
from flowstream.errors import (
    SERVER_ERRORS,
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    NotSupported,
    PreconditionFailed,
    RequestTimeout,
    ServerError,
    StreamAlreadyExists,
    StreamDoesNotExist,
    TokenUnavailable,
)
from flowstream.metrics import Metrics
from flowstream.protocol import (
    Code,
    CreateStream,
    CreateSuperStream,
    DeleteStream,
    Key,
    MetadataUpdate,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    StreamStats,
    Subscribe,
    Tune,
)
from flowstream.telemetry import ConnectionLost, ConnectionOpened, StateChanged
from tests.client.conftest import SECRET, URL, Connect, Recorder
from tests.client.scripted import Cluster, Node, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def roles(node: Node) -> list[str]:
    """The roles of the live connections, from their names (NAME-ROLE-NUMBER)."""
    return sorted(session.name.split("-")[1] for session in node.live())


async def test_roles_never_share_a_connection(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", [b"0"])
    async with connect(cluster, name="app") as env:
        async with env.publisher("s"), env.publisher("s"), env.consumer("s"), env.consumer("s"):
            await env.store_offset("me", "s", 1)
            assert roles(cluster.node) == ["consuming", "locating", "publishing", "tracking"]
            assert env.statistics() == {
                "connections": 4,
                "publishers": 2,
                "subscriptions": 2,
                "tasks": 4 + 2 * 2 + 2 + 2,
            }
        assert roles(cluster.node) == ["locating", "tracking"]
    assert cluster.node.live() == []
    assert env.statistics()["tasks"] == 0
    assert env.state is State.CLOSED


@pytest.mark.parametrize(
    "urls",
    [
        ["rabbitmq-stream://node0:5552", "rabbitmq-stream://node1:5552"],
        "rabbitmq-stream://node0:5552,node1:5552",
        "rabbitmq-stream://node0,node1",
        ("rabbitmq-stream://node0,node1", "rabbitmq-stream://node0"),
    ],
)
async def test_the_first_seed_that_answers_is_used(connect: Connect, urls: Any) -> None:
    cluster = Cluster(2)
    cluster.nodes[0].up = False
    async with connect(cluster, urls) as env:
        assert await env.stream_exists("s") is False
    cluster.nodes[1].up = False
    with pytest.raises(ConnectionFailed, match=r"node0:5552.*node1:5552"):
        async with connect(cluster, urls):
            pass


async def test_the_locator_heals_itself_from_nodes_met_before(
    connect: Connect, recorder: Recorder
) -> None:
    cluster = Cluster(3)
    async with connect(cluster, "rabbitmq-stream://node0:5552,node1:5552") as env:
        cluster.nodes[0].kill()
        await env.wait_for(State.RECOVERING)
        await env.wait_for(State.OPEN)
        cluster.nodes[1].kill()
        await env.wait_for(State.RECOVERING)
        await anyio.sleep(30)
        assert env.state is State.RECOVERING
        with pytest.raises(ConnectionFailed):
            await env.stream_exists("s")
        cluster.nodes[0].up = True
        await env.wait_for(State.OPEN)
        assert len(cluster.nodes[0].live("locating")) == 1
    states = [event.state for event in recorder.of(StateChanged)]
    assert states == ["open", "recovering", "open", "recovering", "open", "closed"]
    assert len(recorder.of(ConnectionOpened)) == len(recorder.of(ConnectionLost)) == 3


async def test_a_query_on_a_connection_that_proves_dead_is_asked_again(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0"])

    def drop_once(session: Session, command: StreamStats) -> bool:
        del cluster.node.scripts[StreamStats]
        session.drop()
        return True

    async with connect(cluster) as env:
        cluster.node.scripts[StreamStats] = drop_once
        assert (await env.stream_stats("s")).first_offset == 0


async def test_a_locator_that_does_not_answer_is_left(connect: Connect) -> None:
    """A half-open connection: heartbeats alone would notice it only after two minutes."""
    cluster = Cluster(2)
    cluster.add("s", [b"0"])
    urls = ["rabbitmq-stream://node0:5552", "rabbitmq-stream://node1:5552"]
    async with connect(cluster, urls, request_timeout=5.0) as env:
        for session in cluster.node.live():
            session.mute = True
        cluster.node.up = False
        with pytest.raises(RequestTimeout, match="node0:5552 did not answer Metadata within 5 s"):
            await env.stream_exists("s")
        assert await env.stream_exists("s")
        assert cluster.node.live() == []
        assert len(cluster.nodes[1].live("locating")) == 1


async def test_a_connection_that_does_not_answer_takes_nobody_new(
    cluster: Cluster, connect: Connect
) -> None:
    """A broker that reads no more (an alarm) keeps those it has; others go to a new connection."""
    cluster.add("s", [b"0"])
    async with connect(cluster, request_timeout=5.0) as env, env.publisher("s") as publisher:
        [blocked] = cluster.node.live("publishing")
        blocked.mute = True
        with pytest.raises(RequestTimeout):
            await env.publisher("s").__aenter__()
        async with env.publisher("s") as other:
            await other.publish(b"1")
            assert len(cluster.node.live("publishing")) == 2
        assert publisher.statistics()["recoveries"] == 0
        blocked.mute = False


@pytest.mark.medium
async def test_who_waits_for_a_node_shares_the_outcome(connect: Connect) -> None:
    """A node that swallows connections costs its timeout once, not once for each publisher."""
    cluster = Cluster(2)
    for number in range(50):
        cluster.add(f"s{number}")
    urls = ["rabbitmq-stream://node1:5552", "rabbitmq-stream://node0:5552"]
    async with connect(cluster, urls) as env, AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(env.publisher(f"s{number}", confirm_timeout=None))
            for number in range(50)
        ]
        dial = cluster.dial

        async def swallow(address: Address) -> Any:
            if address.host == "node0":
                await anyio.sleep(10)
                raise ConnectionFailed("no answer in 10 s")
            return await dial(address)

        env._manager.dial = swallow
        for session in cluster.node.live():
            session.drop()
        await publishers[0].wait_for(State.RECOVERING)
        await anyio.sleep(5)
        cluster.leaders = {f"s{number}": 1 for number in range(50)}
        start = anyio.current_time()
        for publisher in publishers:
            await publisher.publish(b"0")
        assert anyio.current_time() - start < 20


async def test_an_address_resolver_says_where_to_dial(connect: Connect) -> None:
    cluster = Cluster(2)
    cluster.add("s", [b"0"])
    for number, node in enumerate(cluster.nodes):
        node.address = Address(f"inside{number}", 1)
    cluster.balanced = [0, 0]
    asked: list[Address] = []

    def resolver(address: Address) -> Address:
        asked.append(address)
        return Address("outside", 7)

    async with connect(cluster, address_resolver=resolver) as env, env.publisher("s"):
        pass
    assert asked == [Address("inside0", 1)]
    assert cluster.dialled == [Address("node0", 5552), Address("outside", 7)]


async def test_what_the_locator_reached_is_where_its_node_is(connect: Connect) -> None:
    """A broker in a container advertises a name that does not resolve outside of it."""
    cluster = Cluster(1)
    cluster.add("s", [b"0"])
    cluster.node.address = Address("a3f0c1", 5552)
    cluster.balanced = [0] * 10
    async with connect(cluster) as env, env.publisher("s"), env.consumer("s"):
        assert set(cluster.dialled) == {Address("node0", 5552)}


async def test_pitfall_15_behind_a_load_balancer_it_connects_until_the_node_is_right(
    connect: Connect,
) -> None:
    """Pitfall 15: compare the advertised pair, connect again until they match, bounded."""
    cluster = Cluster(3)
    cluster.add("s", [b"0"])
    cluster.leaders["s"] = 2
    cluster.balanced = [0, 0, 1, 0, 2]
    options = {"address_resolver": lambda address: Address("balancer", 5552)}
    async with connect(cluster, **options) as env, env.publisher("s") as publisher:
        assert roles(cluster.nodes[2]) == ["publishing"]
        assert roles(cluster.nodes[0]) == ["locating"]
        assert roles(cluster.nodes[1]) == []
        await publisher.publish(b"x")
    cluster.balanced = [0] * 100
    async with connect(cluster, node_attempts=4, **options) as env:
        with pytest.raises(ConnectionFailed, match=r"node2:5552 did not answer in 4 attempts"):
            await env.publisher("s").__aenter__()
        assert roles(cluster.nodes[0]) == ["locating"]


@pytest.mark.parametrize("offset", ["first", "last", timedelta(hours=1), 3])
async def test_what_is_published_while_an_offset_is_looked_up_is_not_left_out(
    cluster: Cluster, connect: Connect, offset: Any
) -> None:
    """A look at an empty stream finds nothing; the end behind what came since is no beginning."""
    cluster.add("s")

    def come() -> None:
        if not cluster.streams["s"].chunks:
            cluster.add("s", [b"0", b"1"])

    def looked(session: Session, command: Subscribe) -> bool:
        session.subscribe(command)
        if command.offset.kind is offset_spec(offset).kind and offset not in ("first", "last"):
            come()
        return True

    def told(session: Session, command: StreamStats) -> bool:
        session.stats(command)
        come()
        return True

    async with connect(cluster) as env:
        cluster.node.scripts |= {Subscribe: looked, StreamStats: told}
        assert await env.resolve_offset("s", offset) == 0


async def test_admin_requests(cluster: Cluster, connect: Connect) -> None:
    async with connect(cluster) as env:
        await env.create_stream("s", max_length_bytes=10)
        assert cluster.node.received(CreateStream)[0].arguments == {"max-length-bytes": "10"}
        await env.create_stream("s", exist_ok=True)
        with pytest.raises(StreamAlreadyExists) as caught:
            await env.create_stream("s")
        assert (caught.value.code, caught.value.stream) == (5, "s")
        assert await env.stream_exists("s")
        stats = await env.stream_stats("s")
        assert (stats.first_offset, stats.committed_chunk_id) == (None, None)
        assert await env.last_offset("s") is None
        assert await env.resolve_offset("s", "next") == 0
        assert await env.resolve_offset("s", "first") == 0
        cluster.add("s", [b"0", b"1"], [b"2", b"3", b"4"])
        assert await env.last_offset("s") == 4
        cases: list[tuple[Any, int]] = [
            ("first", 0),
            ("last", 2),
            ("next", 5),
            (1, 1),
            (4, 4),
            (9, 5),
        ]
        for offset, expected in cases:
            assert await env.resolve_offset("s", offset) == expected
        assert (await env.metadata("s")).leader == Address("node0", 5552)
        await env.delete_stream("s")
        await env.delete_stream("s", missing_ok=True)
        with pytest.raises(StreamDoesNotExist):
            await env.delete_stream("s")
        with pytest.raises(StreamDoesNotExist):
            await env.metadata("s")


async def test_an_old_server_is_read_where_it_has_no_command(connect: Connect) -> None:
    cluster = Cluster(version="3.10.8")
    async with connect(cluster) as env:
        await env.create_stream("s")
        assert (await env.stream_stats("s")).first_offset is None
        cluster.add("s", [b"0", b"1"], [b"2"])
        stats = await env.stream_stats("s")
        assert (stats.first_offset, stats.committed_chunk_id) == (0, 2)
        assert cluster.node.received(StreamStats) == []
        with pytest.raises(NotSupported, match="rabbitmq-streams add_super_stream"):
            await env.create_super_stream("x")
        with pytest.raises(NotSupported, match="rabbitmq-streams delete_super_stream"):
            await env.delete_super_stream("x")


@pytest.mark.parametrize("code", [*SERVER_ERRORS, 99])
async def test_every_code_has_its_exception(cluster: Cluster, connect: Connect, code: int) -> None:
    def script(session: Session, command: DeleteStream) -> bool:
        session.ok(Key.DELETE_STREAM, command.correlation_id, code)
        return True

    cluster.node.scripts[DeleteStream] = script
    async with connect(cluster) as env:
        with pytest.raises(ServerError, match='cannot delete stream "s": ') as caught:
            await env.delete_stream("s")
    assert type(caught.value) is SERVER_ERRORS.get(code, ServerError)
    assert (caught.value.code, caught.value.stream) == (code, "s")


async def test_other_arguments_of_an_existing_stream(cluster: Cluster, connect: Connect) -> None:
    def script(session: Session, command: CreateStream) -> bool:
        session.ok(Key.CREATE_STREAM, command.correlation_id, 17)
        return True

    cluster.node.scripts[CreateStream] = script
    async with connect(cluster) as env:
        with pytest.raises(PreconditionFailed, match='cannot create stream "s"'):
            await env.create_stream("s", exist_ok=True)


async def test_super_streams_are_created_with_names_and_keys(
    cluster: Cluster, connect: Connect
) -> None:
    async with connect(cluster) as env:
        await env.create_super_stream("x", partitions=2)
        await env.create_super_stream("y", partitions=["eu", "us"], max_age="1h")
        first, second = cluster.node.received(CreateSuperStream)
        assert (first.partitions, first.binding_keys) == (("x-0", "x-1"), ("0", "1"))
        assert (second.partitions, second.binding_keys) == (("y-eu", "y-us"), ("eu", "us"))
        assert second.arguments == {"max-age": "1h"}
        assert await env.partitions("x") == ["x-0", "x-1"]
        assert await env.route("us", "y") == ["y-us"]
        assert await env.route("asia", "y") == []
        with pytest.raises(StreamDoesNotExist):
            await env.partitions("z")
        wrongs: Any = (0, "eu", ["a", "a"], [])
        for wrong in wrongs:
            with pytest.raises(ConfigurationError, match="partitions"):
                await env.create_super_stream("z", partitions=wrong)


async def test_metadata_updates_reach_only_the_streams_users(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("a", [b"0"])
    cluster.add("b", [b"0"])
    async with connect(cluster) as env, env.consumer("a") as a, env.consumer("b") as b:
        cluster.node.live("consuming")[0].send(MetadataUpdate(6, "a"))
        await a.wait_for(State.RECOVERING)
        await a.wait_for(State.OPEN)
        assert a.statistics()["recoveries"] == 1
        assert b.statistics()["recoveries"] == 0


async def test_what_comes_in_behind_the_end_of_a_connection_does_no_harm(
    cluster: Cluster, connect: Connect
) -> None:
    """As a Tune does when opening is cancelled: it asks for an answer that cannot be sent."""
    async with connect(cluster) as env:
        [connection] = env._manager.connections
        connection.abort("the handshake was not completed", "handshake")

        async def late() -> None:
            connection._dispatch(Tune(1 << 20, 60))

        await connection._guarded(late)
        await env.wait_for(State.OPEN)


# --- credentials --------------------------------------------------------------------------------


class Tokens:
    """Makes tokens that are good for 100 s."""

    def __init__(self) -> None:
        self.made = 0
        self.broken = False

    async def __call__(self) -> Token:
        if self.broken:
            raise OSError("the identity provider is away")
        self.made += 1
        return Token(f"{SECRET}-{self.made}", expires_in=100)


def logins(cluster: Cluster) -> list[str]:
    return [command.data.decode()[1:] for command in cluster.node.received(SaslAuthenticate)]


async def test_tokens_are_renewed_on_live_connections_before_they_end(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.node.heartbeat = 0
    tokens = Tokens()
    credentials = TokenCredentials(tokens, user="guest")
    cluster.add("s", [b"0"])
    options = {"credentials": credentials, "heartbeat": 0}
    async with connect(cluster, **options) as env, env.publisher("s") as publisher:
        await anyio.sleep(270)
        assert tokens.made == 4
        assert logins(cluster) == 2 * [f"guest\0{SECRET}-{n}" for n in (1, 2, 3, 4)]
        assert publisher.statistics()["recoveries"] == 0
        assert len(cluster.node.sessions) == 2
    assert SECRET not in repr(credentials)
    assert env.statistics()["tasks"] == 0


async def test_a_token_that_cannot_be_fetched_is_tried_again(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens()
    cluster.node.heartbeat = 0
    async with connect(cluster, credentials=TokenCredentials(tokens), heartbeat=0):
        tokens.broken = True
        await anyio.sleep(90)
        tokens.broken = False
        await anyio.sleep(5)
        assert tokens.made == 2
    assert "renewing the credentials failed" in caplog.text
    assert SECRET not in caplog.text
    tokens.broken = True
    with pytest.raises(TokenUnavailable, match="the identity provider is away"):
        async with connect(cluster, credentials=TokenCredentials(tokens)):
            pass
    assert cluster.node.live() == []
    with pytest.raises(ConfigurationError, match="renew_at"):
        TokenCredentials(tokens, renew_at=1.0)


@pytest.mark.medium
async def test_an_identity_provider_that_is_away_is_waited_for(
    cluster: Cluster, connect: Connect
) -> None:
    """However long: it says nothing about this user's rights."""
    tokens = Tokens()
    cluster.node.heartbeat = 0
    cluster.add("s")
    options = {"credentials": TokenCredentials(tokens), "heartbeat": 0, "missing_timeout": 10}
    async with (
        connect(cluster, **options) as env,
        env.publisher("s", confirm_timeout=None) as publisher,
    ):
        await anyio.sleep(100)
        tokens.broken = True
        await anyio.sleep(100)
        for session in cluster.node.live():
            session.drop()
        await publisher.send(b"0")
        await anyio.sleep(1000)
        assert (publisher.state, env.state) == (State.RECOVERING, State.RECOVERING)
        tokens.broken = False
        await publisher.flush()
        await env.wait_for(State.OPEN)


async def test_a_token_that_is_refused_before_its_time_is_fetched_anew(
    cluster: Cluster, connect: Connect
) -> None:
    """It was revoked, or the clocks differ: trying it until it ends would be an outage."""
    tokens = Tokens()
    cluster.node.heartbeat = 0
    cluster.add("s")
    revoked: list[str] = []

    def authenticate(session: Session, command: SaslAuthenticate) -> bool:
        refused = (command.data or b"").decode()[1:] in revoked
        if refused:
            answer = SaslAuthenticateResponse(command.correlation_id, Code.AUTHENTICATION_FAILURE)
            session.send(answer)
        return refused

    cluster.node.scripts[SaslAuthenticate] = authenticate
    options = {"credentials": TokenCredentials(tokens), "heartbeat": 0}
    async with connect(cluster, **options) as env, env.publisher("s") as publisher:
        revoked += logins(cluster)
        for session in cluster.node.live():
            session.drop()
        start = anyio.current_time()
        await publisher.publish(b"0")
        await env.wait_for(State.OPEN)
        assert anyio.current_time() - start < 10
        assert tokens.made == 2


async def test_servers_that_cannot_be_told_are_not(connect: Connect) -> None:
    cluster = Cluster(version="3.12.1", heartbeat=0)
    tokens = Tokens()
    async with connect(cluster, credentials=TokenCredentials(tokens), heartbeat=0):
        await anyio.sleep(1000)
    assert len(logins(cluster)) == 1


async def test_secrets_are_in_no_text(
    cluster: Cluster, connect: Connect, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    def refuse(session: Session, command: SaslAuthenticate) -> bool:
        session.send(SaslAuthenticateResponse(command.correlation_id, 8))
        return True

    texts: list[str] = []
    cluster.add("s", [b"0"])
    async with connect(cluster) as env:
        async with env.publisher("s") as publisher, env.consumer("s") as consumer:
            texts += map(repr, (env, publisher, consumer, publisher.statistics()))
            cluster.node.scripts[SaslAuthenticate] = refuse
            for session in cluster.node.live():
                session.drop()
            await publisher.wait_for(State.CLOSED)
        texts += map(repr, recorder.events)
    try:
        async with connect(cluster):
            pass
    except AuthenticationFailed as error:
        texts += [repr(error), str(error)]
    metrics = Metrics()
    for event in recorder.events:
        metrics.observe(event)
    texts.append(metrics.exposition()[1].decode())
    texts += [repr(vars(env)["url"]), repr(Tls(key_password=SECRET)), caplog.text]
    assert "node0" in "".join(texts)
    assert SECRET not in "".join(texts)


# --- TLS ----------------------------------------------------------------------------------------


@pytest.mark.medium
def test_tls_options_are_checked(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs Tls"):
        Tls(key="k").context()
    with pytest.raises(ConfigurationError, match="ca_file"):
        Tls(ca_file=tmp_path / "missing.pem").context()
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    with pytest.raises(ConfigurationError, match="certificate"):
        Tls(certificate=broken).context()
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -passout pass:{SECRET} -subj /CN=x -keyout k -out c",
        shell=True, cwd=tmp_path, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    files = {"certificate": tmp_path / "c", "key": tmp_path / "k"}
    Tls(**files, key_password=SECRET).context()
    for wrong in (None, "", f"{SECRET}x", SECRET * 500):  # and nobody is asked on the terminal
        with pytest.raises(ConfigurationError, match="key_password is right") as caught:
            Tls(**files, key_password=wrong).context()
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"needs a rabbitmq-stream\+tls://"):
        Environment(URL, tls=Tls())


def test_tls_verifies_by_default() -> None:
    import ssl

    assert Tls().context().verify_mode is ssl.CERT_REQUIRED
    assert Tls().context().check_hostname
    assert Tls(verify=False).context().verify_mode is ssl.CERT_NONE
    assert _dial is not None
