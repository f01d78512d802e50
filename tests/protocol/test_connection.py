"""The state machine in both roles: the table, out of turn, tuning, limits, closing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol.connection import TABLE
from tests.protocol.strategies import FIELDS, command_of, commands

OPENED = {"advertised_host": "node.example", "advertised_port": "5552"}


class Pair:
    """A client and a server whose bytes go straight to one another."""

    def __init__(self, client: p.Connection | None = None, server: p.Connection | None = None):
        self.client = client or p.Connection(p.Role.CLIENT)
        self.server = server or p.Connection(p.Role.SERVER)

    def up(self, command: p.Command) -> list[p.Command]:
        return self.server.receive(self.client.send(command))

    def down(self, command: p.Command) -> list[p.Command]:
        return self.client.receive(self.server.send(command))

    def states(self) -> set[p.State]:
        return {self.client.state, self.server.state}

    def authenticate(self) -> Pair:
        self.up(p.PeerProperties(1, {"product": "client"}))
        self.down(p.PeerPropertiesResponse(1, p.OK, {"product": "server"}))
        self.up(p.SaslHandshake(2))
        self.down(p.SaslHandshakeResponse(2, p.OK, ("PLAIN",)))
        self.up(p.SaslAuthenticate(3, "PLAIN", b"secret"))
        self.down(p.SaslAuthenticateResponse(3, p.OK))
        return self

    def tune(self) -> Pair:
        self.down(p.Tune(self.server.frame_max, self.server.heartbeat))
        self.up(p.TuneResponse(self.client.frame_max, self.client.heartbeat))
        return self

    def open(self) -> Pair:
        self.up(p.Open(4, "/"))
        self.down(p.OpenResponse(4, p.OK, OPENED))
        return self


def running(**options: Any) -> Pair:
    client = p.Connection(p.Role.CLIENT, **options)
    return Pair(client).authenticate().tune().open()


def test_both_sides_reach_running_by_the_same_steps():
    pair = Pair()
    assert pair.states() == {p.State.HANDSHAKE}
    pair.authenticate()
    assert pair.states() == {p.State.TUNE}
    pair.tune()
    assert pair.states() == {p.State.OPEN}
    pair.open()
    assert pair.states() == {p.State.RUNNING}
    assert pair.client.peer_properties == {"product": "server"}
    assert pair.server.peer_properties == {"product": "client"}
    assert pair.client.advertised == p.Address("node.example", 5552)


def test_the_table_has_every_state_of_both_roles():
    assert set(TABLE) == {(role, state) for role in p.Role for state in p.State}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_each_command_can_be_sent_while_running_by_one_side_or_both(kind: type, data: Any):
    pair = running(frame_max=0)
    command = data.draw(command_of(kind))
    if kind is p.Response:
        command = p.Response(p.Key.SUBSCRIBE, 1, p.OK)
    taken = []
    for send in (pair.up, pair.down):
        with contextlib.suppress(LocalProtocolError):
            taken.append(send(command))
    handshake = (
        *(p.PeerProperties, p.PeerPropertiesResponse, p.SaslHandshake, p.SaslHandshakeResponse),
        *(p.Tune, p.TuneResponse, p.Open, p.OpenResponse),
    )
    assert bool(taken) == (kind not in handshake)
    assert all(commands == [command] for commands in taken)


@given(commands, st.sampled_from(p.Role), st.sampled_from(p.State))
def test_what_may_not_be_sent_is_refused_when_it_arrives(command, role, state):
    """Sender and receiver agree: a command goes out if, and only if, the peer takes it."""
    sender = p.Connection(role, frame_max=0)
    peer = p.Role.CLIENT if role is p.Role.SERVER else p.Role.SERVER
    receiver = p.Connection(peer)
    sender._enter(state)
    receiver._enter(state)
    try:
        data = sender.send(command)
    except LocalProtocolError:
        refused = True
        data = p.encode(command)
    else:
        refused = False
    assume(role is p.Role.CLIENT or not isinstance(command, p.Route | p.Partitions))
    try:
        received = receiver.receive(data)
    except ProtocolError:
        assert refused
    else:
        assert (received == []) == refused


def test_a_challenge_keeps_the_exchange_open():
    pair = Pair()
    pair.up(p.SaslHandshake(2))
    pair.up(p.SaslAuthenticate(3, "CR", b"hello"))
    pair.down(p.SaslAuthenticateResponse(3, p.CHALLENGE, b"and?"))
    assert pair.states() == {p.State.SASL}
    pair.up(p.SaslAuthenticate(4, "CR", b"me"))
    pair.down(p.SaslAuthenticateResponse(4, p.OK))
    assert pair.states() == {p.State.TUNE}


@pytest.mark.parametrize("code", [7, 8, 9, 11])
def test_a_refused_login_closes_both_sides(code: int):
    pair = Pair()
    pair.up(p.SaslHandshake(2))
    pair.up(p.SaslAuthenticate(3, "PLAIN", b"wrong"))
    pair.down(p.SaslAuthenticateResponse(3, code))
    assert pair.states() == {p.State.CLOSED}


def test_a_refused_virtual_host_closes_both_sides():
    pair = Pair().authenticate().tune()
    pair.up(p.Open(4, "nowhere"))
    pair.down(p.OpenResponse(4, p.Code.VIRTUAL_HOST_ACCESS_FAILURE, {}))
    assert pair.states() == {p.State.CLOSED}


def test_a_token_is_refreshed_on_a_live_connection():
    pair = running()
    pair.up(p.SaslAuthenticate(9, "PLAIN", b"new"))
    pair.down(p.SaslAuthenticateResponse(9, p.Code.AUTHENTICATION_FAILURE))
    assert pair.states() == {p.State.RUNNING}


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [(10, 20, 10), (20, 10, 10), (0, 20, 20), (20, 0, 20), (0, 0, 0)]
)
def test_a_tuned_value_is_the_smaller_unless_one_is_no_limit(ours: int, theirs: int, agreed: int):
    assert p.negotiate(ours, theirs) == agreed
    pair = Pair(
        p.Connection(p.Role.CLIENT, frame_max=ours * 1000, heartbeat=ours),
        p.Connection(p.Role.SERVER, frame_max=theirs * 1000, heartbeat=theirs),
    )
    pair.authenticate().tune()
    assert {pair.client.heartbeat, pair.server.heartbeat} == {agreed}
    assert {pair.client.frame_max, pair.server.frame_max} == {agreed * 1000}


def test_a_client_may_answer_tune_with_or_without_the_response_bit():
    pair = Pair().authenticate()
    pair.down(p.Tune(1000, 10))
    pair.up(p.Tune(500, 5))
    assert pair.states() == {p.State.OPEN}
    assert (pair.server.frame_max, pair.server.heartbeat) == (500, 5)


def test_a_server_takes_small_frames_only_before_open():
    small, large = "x" * 8000, "x" * 9000
    server = p.Connection(p.Role.SERVER)
    assert server.receive(p.encode(p.PeerProperties(1, {"k": small})))
    with pytest.raises(ProtocolError) as caught:
        server.receive(p.encode(p.PeerProperties(1, {"k": large}))[:4])
    assert caught.value.code == p.Code.FRAME_TOO_LARGE
    pair = running()
    assert pair.up(p.Publish(1, [(1, large.encode())]))


def test_a_frame_over_the_tuned_size_is_refused_on_either_side():
    pair = running(frame_max=10_000)
    with pytest.raises(LocalProtocolError) as refused:
        pair.client.send(p.Publish(1, [(1, bytes(10_000))]))
    assert refused.value.code == p.Code.FRAME_TOO_LARGE
    assert pair.client.state is p.State.RUNNING
    with pytest.raises(ProtocolError) as caught:
        pair.server.receive(p.encode(p.Publish(1, [(1, bytes(10_000))])))
    assert caught.value.code == p.Code.FRAME_TOO_LARGE


def test_a_chunk_may_be_larger_than_the_tuned_size():
    pair = running(frame_max=1000)
    assert pair.down(p.Deliver(1, bytes(5000), 1))


def test_a_client_bounds_what_it_takes():
    client = p.Connection(p.Role.CLIENT, inbound_max=1000)
    with pytest.raises(ProtocolError):
        client.receive((1001).to_bytes(4))


def test_the_commands_before_a_bad_frame_come_with_the_error():
    pair = running()
    good = [p.Credit(1, 1), p.Credit(2, 2)]
    data = b"".join(map(p.encode, good)) + p.encode(p.Deliver(1, b""))
    with pytest.raises(ProtocolError) as caught:
        pair.server.receive(data)
    assert caught.value.preceding == tuple(good)
    assert pair.server.closed
    with pytest.raises(ProtocolError):
        pair.server.receive(p.encode(good[0]))
    with pytest.raises(LocalProtocolError):
        pair.server.send(p.Heartbeat())


@given(data=st.binary(max_size=60), state=st.sampled_from(p.State), role=st.sampled_from(p.Role))
def test_garbage_is_a_protocol_error_or_ignored(data: bytes, state: p.State, role: p.Role):
    connection = p.Connection(role)
    connection._enter(state)
    with contextlib.suppress(ProtocolError):
        connection.receive(len(data).to_bytes(4) + data)


@given(
    sent=st.lists(st.one_of(*map(command_of, (p.Credit, p.Subscribe, p.Publish))), max_size=6),
    bad=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_any_cut_gives_the_same_commands_and_the_same_end(sent, bad, cuts):
    whole = b"".join(map(p.encode, sent)) + (b"\0\0\0\4\7\7\7\7" if bad else b"")
    bounds = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    outcomes = []
    for ends in ([0, len(whole)], bounds):
        server = p.Connection(p.Role.SERVER)
        server._enter(p.State.RUNNING)
        found: list[object] = []
        try:
            for i in range(1, len(ends)):
                found += server.receive(whole[ends[i - 1] : ends[i]])
        except ProtocolError as error:
            found += error.preceding
        outcomes.append((found, server.state))
    assert outcomes[0] == outcomes[1] == (sent, p.State.CLOSED if bad else p.State.RUNNING)


def test_pitfall_17_a_close_from_either_side_is_answered():
    pair = running()
    assert pair.up(p.Close(7, p.OK, "bye")) == [p.Close(7, p.OK, "bye")]
    assert pair.down(p.Deliver(1, b"under way", 1))
    pair.down(p.Response(p.Key.CLOSE, 7, p.OK))
    assert pair.states() == {p.State.CLOSED}
    pair = running()
    pair.down(p.Close(1, p.Code.UNKNOWN_FRAME, "what?"))
    pair.up(p.Response(p.Key.CLOSE, 1, p.OK))
    assert pair.states() == {p.State.CLOSED}


def test_both_sides_may_close_at_once():
    pair = running()
    up, down = pair.client.send(p.Close(7, p.OK, "")), pair.server.send(p.Close(1, p.OK, ""))
    pair.server.receive(up)
    pair.client.receive(down)
    pair.up(p.Response(p.Key.CLOSE, 1, p.OK))
    assert pair.states() == {p.State.CLOSED}


def test_what_a_client_sends_after_its_close_is_ignored():
    pair = running()
    data = pair.client.send(p.Close(7, p.OK, "")) + p.encode(p.Credit(1, 1))
    assert pair.server.receive(data) == [p.Close(7, p.OK, "")]


def test_what_comes_after_the_end_is_ignored():
    pair = running()
    pair.up(p.Close(7, p.OK, ""))
    pair.down(p.Response(p.Key.CLOSE, 7, p.OK))
    assert pair.client.receive(p.encode(p.Heartbeat())) == []


def test_an_answer_of_a_server_before_3_11_needs_no_response_bit():
    pair = running()
    pair.up(p.Partitions(5, "super"))
    answer = bytearray(p.encode(p.PartitionsResponse(5, p.OK, ("super-0",))))
    answer[4] = 0
    assert pair.client.receive(bytes(answer)) == [p.PartitionsResponse(5, p.OK, ("super-0",))]


def test_versions_of_the_peer():
    pair = running()
    assert pair.client.supports(p.Key.PARTITIONS)
    assert not pair.client.supports(p.Key.STREAM_STATS)
    assert not pair.client.supports(p.Key.DELIVER, 2)
    pair.up(p.ExchangeCommandVersions(5, p.CLIENT_VERSIONS))
    pair.down(p.ExchangeCommandVersionsResponse(5, p.OK, p.SERVER_VERSIONS))
    assert pair.client.supports(p.Key.RESOLVE_OFFSET_SPEC)
    assert pair.client.supports(p.Key.PUBLISH, 2)
    assert not pair.client.supports(p.Key.PUBLISH, 3)
    assert pair.server.supports(p.Key.DELIVER, 2)
    assert not pair.server.supports(p.Key.RESOLVE_OFFSET_SPEC)


@pytest.mark.parametrize("port", ["", "x", "123456", "²"])
def test_a_useless_advertised_address_is_none(port: str):
    pair = Pair().authenticate().tune()
    pair.up(p.Open(4, "/"))
    pair.down(p.OpenResponse(4, p.OK, {"advertised_host": "h", "advertised_port": port}))
    assert pair.client.advertised is None
