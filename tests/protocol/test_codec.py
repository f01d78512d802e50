"""Every command through writer and reader; garbage is refused; counts are bounded."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import LocalProtocolError, ProtocolError
from tests.protocol.strategies import FIELDS, command_of, commands


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=min(settings().max_examples, 100))  # of each command
def test_a_command_is_read_as_it_was_written(kind: type[Any], data: st.DataObject):
    command = data.draw(command_of(kind))
    frame = p.encode(command)
    assert int.from_bytes(frame[:4]) == len(frame) - 4
    for form in (bytes, memoryview, lambda raw: memoryview(bytearray(raw))):
        again = p.decode(form(frame[4:]))
        assert type(again) is kind
        assert again == command


def test_every_key_has_both_directions():
    one_way = {
        p.Key.PUBLISH,
        p.Key.PUBLISH_CONFIRM,
        p.Key.PUBLISH_ERROR,
        p.Key.DELIVER,
        p.Key.STORE_OFFSET,
        p.Key.METADATA_UPDATE,
        p.Key.HEARTBEAT,
    }
    for key in p.Key:
        assert (key, False, 1) in p.COMMANDS
        assert ((key, True, 1) in p.COMMANDS) == (key not in one_way)


def test_every_command_is_in_the_table_and_in_the_strategies():
    rows = Counter(row.command for row in p.COMMANDS.values())
    assert set(rows) == set(p.Command.__args__) == set(FIELDS)
    assert {kind for kind, count in rows.items() if count > 1} == {p.Response, p.Deliver}


def test_the_versions_of_the_table_are_those_of_the_protocol():
    second = {key for key, _, version in p.COMMANDS if version == 2}
    assert second == {p.Key.PUBLISH, p.Key.DELIVER}
    assert {version for _, _, version in p.COMMANDS} == {1, 2}


@given(st.binary(max_size=80))
def test_garbage_is_a_protocol_error_or_a_command(data: bytes):
    with contextlib.suppress(ProtocolError):
        p.decode(data)


@given(
    command=commands,
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.integers(0, 400),
)
def test_a_damaged_frame_is_a_protocol_error_or_a_command(command, edits, end):
    frame = bytearray(p.encode(command)[4:])
    for position, value in edits:
        frame[position % len(frame)] = value
    for damaged in (bytes(frame), bytes(frame[: end % (len(frame) + 1)])):
        try:
            again = p.decode(damaged)
        except ProtocolError:
            continue
        assert p.decode(p.encode(again)[4:]) == again


OPEN_ENDED = (
    p.Deliver,
    p.SaslAuthenticateResponse,
    p.OpenResponse,
    p.Subscribe,
    p.ResolveOffsetSpec,
    p.ConsumerUpdateResponse,
)
"""Commands whose last field may be absent, or takes all that is left."""


@given(command=commands, more=st.binary(min_size=1, max_size=3))
def test_bytes_left_over_are_refused(command, more: bytes):
    assume(not isinstance(command, OPEN_ENDED))
    with pytest.raises(ProtocolError):
        p.decode(p.encode(command)[4:] + more)


HUGE_COUNTS = [
    "0002 0001 01 7fffffff",
    "0002 0002 01 7fffffff",
    "0003 0001 01 7fffffff",
    "0004 0001 01 7fffffff",
    "000f 0001 00000001 7fffffff 0000",
    "0011 0001 00000001 7fffffff 0000 0000",
    "800f 0001 00000001 7fffffff 0000",
    "8012 0001 00000001 0001 7fffffff",
    "801b 0001 00000001 0001 7fffffff",
    "801c 0001 00000001 0001 7fffffff",
]


@pytest.mark.parametrize("frame", HUGE_COUNTS)
def test_pitfall_19_a_count_is_bounded_by_the_bytes_left(frame: str):
    data = bytes.fromhex(frame)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            p.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", ["ffffffff", "80000000"])
def test_a_negative_count_is_refused(count: str):
    with pytest.raises(ProtocolError):
        p.decode(bytes.fromhex("000f 0001 00000001" + count))


def test_pitfall_6_a_credit_error_has_no_correlation_id():
    frame = bytes.fromhex("8009 0001 0004 c9")
    assert p.decode(frame) == p.CreditError(p.Code.SUBSCRIPTION_ID_DOES_NOT_EXIST, 201)


def test_pitfall_8_a_stored_0_is_told_from_none_by_the_code():
    stored = p.decode(bytes.fromhex("800b 0001 00000001 0001 0000000000000000"))
    none = p.decode(bytes.fromhex("800b 0001 00000001 0013 0000000000000000"))
    assert stored == p.QueryOffsetResponse(1, p.OK, 0)
    assert none == p.QueryOffsetResponse(1, p.Code.NO_OFFSET, 0)


def test_pitfall_14_a_stream_may_have_no_leader_and_refer_to_unknown_brokers():
    stream = p.StreamMetadata("s", p.OK, p.NO_LEADER, (3, 65535))
    frame = p.encode(p.MetadataResponse(1, {0: p.Address("h", 5552)}, (stream,)))
    assert frame.endswith(bytes.fromhex("0001 73 0001 ffff 00000002 0003 ffff"))
    command: Any = p.decode(frame[4:])
    assert command.streams == (stream,)
    assert stream.leader not in command.brokers


def test_pitfall_18_lengths_count_bytes_not_characters():
    frame = p.encode(p.DeleteStream(1, "größe"))
    assert frame.endswith(bytes.fromhex("0007") + "größe".encode())


def test_a_publisher_without_a_reference_has_an_empty_one_on_the_wire():
    frame = p.encode(p.DeclarePublisher(1, 2, None, "s"))
    assert frame[4:] == bytes.fromhex("0001 0001 00000001 02 0000 0001 73")
    null = bytes.fromhex("0001 0001 00000001 02 ffff 0001 73")
    assert p.decode(null) == p.DeclarePublisher(1, 2, None, "s")


def test_a_message_without_a_filter_value_has_a_null_one_and_an_empty_one_is_kept():
    frame = p.encode(p.PublishFiltered(1, [(1, None, b"a"), (2, "", b"b")]))
    assert frame[13:] == bytes.fromhex(
        "0000000000000001ffff0000000161 0000000000000002000000000001 62"
    )


def test_a_null_string_is_refused_where_servers_take_none():
    with pytest.raises(ProtocolError):
        p.decode(bytes.fromhex("000e 0001 00000001 ffff"))


@pytest.mark.parametrize("challenge", ["0003 616263", "00000003 616263"])
def test_a_sasl_challenge_is_read_with_either_length(challenge: str):
    frame = bytes.fromhex("8013 0001 00000001 000a" + challenge)
    assert p.decode(frame) == p.SaslAuthenticateResponse(1, p.CHALLENGE, b"abc")


@pytest.mark.parametrize("key", ["8005", "800b", "8018", "8019", "801a", "801b", "801c", "801f"])
def test_an_error_may_end_after_its_code(key: str):
    command: Any = p.decode(bytes.fromhex(key + "0001 00000007 0010"))
    assert (command.correlation_id, command.code) == (7, p.Code.ACCESS_REFUSED)
    assert p.decode(p.encode(command)[4:]) == command
    with pytest.raises(ProtocolError):
        p.decode(bytes.fromhex(key + "0001 00000007 0001"))


def test_a_subscription_without_properties_ends_after_the_credit():
    command = p.Subscribe(1, 2, "s", p.OffsetSpec.next(), 3, {})
    assert p.encode(command).endswith(bytes.fromhex("0003 0003"))
    assert p.decode(p.encode(command)[4:] + bytes(4)) == command


@pytest.mark.parametrize("kind", ["0000", "0001", "0002", "0003"])
def test_a_consumer_update_answer_may_have_a_value_where_none_belongs(kind: str):
    """rstream sends one with every offset type, and servers read over it."""
    frame = bytes.fromhex("801a 0001 00000001 0001" + kind)
    assert p.decode(frame + bytes(8)) == p.decode(frame)


@pytest.mark.parametrize(
    "command",
    [
        p.DeletePublisher(1, 256),
        p.DeletePublisher(-1, 1),
        p.DeleteStream(1 << 32, "s"),
        p.DeleteStream(1, "s" * 32768),
        p.DeleteStream(1, "\ud800"),
        p.Credit(1, 65536),
        p.PublishConfirm(1, (-1,)),
        p.Publish(1, [(1 << 64, b"")]),
        p.PublishFiltered(1, [(1, "x" * 32768, b"")]),
        p.Subscribe(1, 1, "s", p.OffsetSpec.offset(-1), 1, {}),
        p.Response(p.Key.HEARTBEAT, 1, 1),
    ],
)
def test_what_the_wire_cannot_carry_is_refused(command):
    with pytest.raises(LocalProtocolError):
        p.encode(command)


def test_versions_are_chosen_by_the_fields_or_asked_for():
    deliver = p.Deliver(1, b"chunk", 5)
    assert p.encode(deliver)[6:8] == b"\x00\x02"
    assert p.encode(deliver, version=1)[6:8] == b"\x00\x01"
    assert p.decode(p.encode(deliver, version=1)[4:]) == p.Deliver(1, b"chunk")
    with pytest.raises(LocalProtocolError):
        p.encode(p.Deliver(1, b"chunk"), version=2)
    with pytest.raises(LocalProtocolError):
        p.encode(p.Heartbeat(), version=2)


@pytest.mark.parametrize("frame", ["", "0017", "001700", "0020 0001", "0017 0003", "0000 0001"])
def test_unknown_keys_and_versions_are_refused(frame: str):
    with pytest.raises(ProtocolError) as caught:
        p.decode(bytes.fromhex(frame))
    assert caught.value.code == p.Code.UNKNOWN_FRAME


def test_a_secret_stays_out_of_the_repr():
    assert "hunter2" not in repr(p.SaslAuthenticate(1, "PLAIN", b"\0me\0hunter2"))
