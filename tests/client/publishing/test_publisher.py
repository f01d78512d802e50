"""Publishing: windows, confirms, failures, and what happens to it all when the connection ends."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import State
from flowstream.errors import (
    ConfigurationError,
    ConnectionClosed,
    MessageTooLarge,
    NotSupported,
    PublishFailed,
    StreamDoesNotExist,
)
from flowstream.protocol import (
    AmqpMessage,
    Code,
    Compression,
    DeclarePublisher,
    Publish,
    PublishConfirm,
    PublishError,
    QueryPublisherSequence,
    encode_data,
)
from flowstream.telemetry import Confirmed, Published, StateChanged
from tests.client.conftest import Connect, Recorder
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def stored(cluster: Cluster, stream: str = "s") -> list[bytes]:
    return [entry[4:] for chunk in cluster.streams[stream].chunks for entry in chunk[2]]


def numbers(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def test_everything_sent_is_stored_in_order_and_confirmed(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for body in numbers(1500):
            await publisher.send(body)
        await publisher.send_many(numbers(1500, 1500))
        await publisher.publish(b"3000")
        await publisher.publish_many(numbers(2, 3001))
        assert publisher.unconfirmed == 0
        assert publisher.statistics()["unconfirmed_bytes"] == 0
    assert stored(cluster) == numbers(3003)
    assert cluster.node.live() == []


@pytest.mark.medium
async def test_messages_sent_one_by_one_share_frames(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for body in numbers(1024):
            await publisher.send(body)
        await publisher.flush()
    frames = [len(command.messages) for command in cluster.node.received(Publish)]
    assert sum(frames) == 1024
    assert len(frames) <= 4


async def test_a_full_window_makes_senders_wait(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env:
        publisher = env.publisher("s", max_unconfirmed=100, confirm_timeout=None)
        async with publisher:
            await publisher.send_many(numbers(100))
            with anyio.move_on_after(60) as waiting:
                await publisher.send(b"one more")
            assert waiting.cancelled_caught
            assert publisher.unconfirmed == 100
            [session] = cluster.node.live("publishing")
            session.send(PublishConfirm(0, tuple(range(1, 101))))
            await publisher.send(b"one more")
            await anyio.wait_all_tasks_blocked()
            session.send(PublishConfirm(0, (101,)))


async def test_the_window_is_bounded_in_bytes_too(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env:
        publisher = env.publisher("s", max_unconfirmed_bytes=1000, confirm_timeout=5.0)
        with pytest.raises(PublishFailed):  # noqa: PT012
            async with publisher:
                await publisher.send(bytes(900))
                with anyio.move_on_after(1) as waiting:
                    await publisher.send(bytes(900))
                assert waiting.cancelled_caught


async def test_an_empty_window_takes_what_is_larger_than_it(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s", max_unconfirmed=2) as publisher:
        await publisher.send_many(numbers(9))
    assert stored(cluster) == numbers(9)


async def test_a_message_that_is_never_confirmed_fails_after_the_timeout(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env, env.publisher("s", confirm_timeout=30.0) as publisher:
        start = anyio.current_time()
        with pytest.raises(PublishFailed, match="not confirmed within 30 s") as caught:
            await publisher.publish(b"x")
        assert 30 <= anyio.current_time() - start < 61
        assert (caught.value.publishing_id, caught.value.code, caught.value.stream) == (1, 0, "s")
        assert publisher.unconfirmed == 0


async def test_a_refusal_reaches_the_one_who_waits(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    cluster.node.scripts[Publish] = refuse(Code.ACCESS_REFUSED)
    async with connect(cluster) as env, env.publisher("s") as publisher:
        with pytest.raises(PublishFailed, match="no permission") as caught:
            await publisher.publish(b"x")
        assert caught.value.code == Code.ACCESS_REFUSED
        with pytest.raises(PublishFailed, match="5 messages in all"):
            await publisher.publish_many(numbers(5))
        await publisher.flush()


async def test_a_refusal_nobody_waits_for_is_raised_by_flush(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.scripts[Publish] = refuse(Code.ACCESS_REFUSED)
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.send_many(numbers(3))
        with pytest.raises(PublishFailed) as caught:
            await publisher.flush()
        assert caught.value.publishing_id == 1
        await publisher.flush()
        await publisher.send(b"again")
        with pytest.raises(PublishFailed):
            await publisher.__aexit__(None, None, None)


async def test_callbacks_get_ids_and_may_raise(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    confirmed: list[int] = []
    failed: list[tuple[list[int], int]] = []

    def on_confirm(ids: Any) -> None:
        confirmed.extend(ids)
        raise ValueError("a callback's own mistake")

    async with connect(cluster) as env:
        publisher = env.publisher(
            "s",
            on_confirm=on_confirm,
            on_error=lambda ids, error: failed.append((list(ids), error.code)),
        )
        async with publisher:
            await publisher.send_many(numbers(3))
            await publisher.flush()
            cluster.node.scripts[Publish] = refuse(Code.ACCESS_REFUSED)
            await publisher.send(b"x")
            await publisher.flush()
    assert confirmed == [1, 2, 3]
    assert failed == [([4], Code.ACCESS_REFUSED)]
    assert "a callback of a publisher raised" in caplog.text


def batches_of(session: Session) -> list[Any]:
    return [batch for c in session.received if isinstance(c, Publish) for batch in c.messages]


def refuse(code: int) -> Any:
    def script(session: Session, command: Any) -> bool:
        ids = command.messages.ids
        session.send(PublishError(command.publisher_id, tuple((n, code) for n in ids)))
        return True

    return script


async def test_unconfirmed_messages_are_sent_again_with_their_ids_before_new_ones(
    cluster: Cluster, connect: Connect
) -> None:
    log = cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env, env.publisher("s", reference="me") as publisher:
        await publisher.send_many(numbers(10))
        [session] = cluster.node.live("publishing")
        while not cluster.node.received(Publish):
            await anyio.lowlevel.checkpoint()
        session.send(PublishConfirm(0, (1, 3, 4)))
        await anyio.wait_all_tasks_blocked()
        session.drop()
        await publisher.wait_for(State.RECOVERING)
        await publisher.send_many(numbers(2, 10))
        cluster.node.unconfirming = False
        await publisher.flush()
        assert publisher.statistics()["recoveries"] == 1
    assert stored(cluster) == numbers(12)
    assert log.sequences == {"me": 12}
    again = cluster.node.live("publishing") or cluster.node.sessions[-1:]
    frames: list[Any] = [c.messages for s in again for c in s.received if isinstance(c, Publish)]
    frames = [entries.ids for entries in frames]
    assert frames[0] == [2, 5, 6, 7, 8, 9, 10]
    assert [number for frame in frames for number in frame][-2:] == [11, 12]


async def test_pitfall_11_a_confirm_may_come_before_the_write_has_ended(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 11: an entry is registered before its bytes are written."""
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        [session] = cluster.node.live("publishing")
        written = anyio.Event()

        async def send(data: bytes) -> None:
            session.feed(data)
            await written.wait()

        session.socket.send = send  # type: ignore[method-assign, assignment]
        await publisher.publish_many(numbers(5))
        assert publisher.unconfirmed == 0
        written.set()


async def test_pitfall_11_confirms_are_a_set(cluster: Cluster, connect: Connect) -> None:
    """Pitfall 11: in any order, some twice, some of nobody."""
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.send_many(numbers(10))
        [session] = cluster.node.live("publishing")
        for ids, left in [((7, 3, 9), 7), ((3, 7), 7), ((99, 0), 7), ((1, 10), 5), ((6, 2, 6), 3)]:
            await anyio.wait_all_tasks_blocked()
            session.send(PublishConfirm(0, ids))
            await anyio.wait_all_tasks_blocked()
            assert publisher.unconfirmed == left
        session.send(PublishConfirm(0, (8, 5, 4)))
        await publisher.flush()
        assert publisher.unconfirmed == 0


async def test_pitfall_12_ids_increase_whoever_sends(cluster: Cluster, connect: Connect) -> None:
    """Pitfall 12: one task encodes and sends; frames end below the negotiated frame_max."""
    cluster.add("s")
    cluster.node.frame_max = 4096
    async with connect(cluster) as env, env.publisher("s") as publisher:

        async def send(task: int) -> None:
            for number in range(50):
                if number % 3:
                    await publisher.send(b"%d" % number * 100)
                else:
                    await publisher.send_many([b"%d" % task * 50] * 20)

        async with anyio.create_task_group() as group:
            for task in range(10):
                group.start_soon(send, task)
        await publisher.flush()
    frames: list[Any] = [command.messages for command in cluster.node.received(Publish)]
    ids = [number for entries in frames for number in entries.ids]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) == 10 * (17 * 20 + 33)
    for entries in frames:
        assert 9 + sum(8 + len(entry) for entry in entries.entries) <= 4096


async def test_pitfall_13_a_forgotten_publisher_is_declared_again(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 13: PublishError 18 after MetadataUpdate: declare again and send again."""
    cluster.add("s")
    once = [refuse(Code.PUBLISHER_DOES_NOT_EXIST)]
    cluster.node.scripts[Publish] = lambda session, c: bool(once) and once.pop()(session, c)
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish_many(numbers(5))
        assert publisher.statistics()["recoveries"] == 1
    assert stored(cluster) == numbers(5)


async def test_it_follows_the_leader(connect: Connect) -> None:
    cluster = Cluster(3)
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish(b"0")
        cluster.leaders["s"] = 2
        cluster.node.forget("s")
        await publisher.publish(b"1")
        assert len(cluster.nodes[2].live("publishing")) == 1
        assert cluster.nodes[0].live("publishing") == []
    assert stored(cluster) == [b"0", b"1"]


async def test_pitfall_14_a_stream_without_a_leader_is_waited_for(connect: Connect) -> None:
    """Pitfall 14: leader 65535 or missing from the broker list means no leader now: try again."""
    cluster = Cluster(2)
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        cluster.leaders["s"] = 7
        cluster.node.forget("s")
        await publisher.send(b"waits")
        await anyio.sleep(3)
        assert publisher.state is State.RECOVERING
        cluster.leaders["s"] = 1
        await publisher.flush()
    assert stored(cluster) == [b"waits"]


async def test_a_deleted_stream_is_given_up_after_the_missing_timeout(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster, missing_timeout=20.0) as env:
        with pytest.raises(PublishFailed, match="the stream does not exist"):  # noqa: PT012
            async with env.publisher("s", confirm_timeout=None) as publisher:
                del cluster.streams["s"]
                cluster.node.forget("s")
                await publisher.wait_for(State.RECOVERING)
                await publisher.send(b"x")
                await publisher.wait_for(State.CLOSED)
                with pytest.raises(StreamDoesNotExist):
                    await publisher.send(b"x")


async def test_a_deleted_and_created_stream_goes_on(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish(b"old")
        del cluster.streams["s"]
        cluster.node.forget("s")
        await publisher.wait_for(State.RECOVERING)
        await publisher.send(b"new")
        await anyio.sleep(2)
        cluster.add("s")
        await publisher.flush()
    assert stored(cluster) == [b"new"]


async def test_recovery_is_given_up_after_its_timeout(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster, recovery_timeout=60.0) as env:
        with pytest.raises(PublishFailed, match="no broker"):  # noqa: PT012
            async with env.publisher("s", confirm_timeout=None) as publisher:
                cluster.node.kill()
                await publisher.wait_for(State.RECOVERING)
                await publisher.send(b"x")
                start = anyio.current_time()
                await publisher.wait_for(State.CLOSED)
                assert 55 < anyio.current_time() - start < 70


async def test_the_first_attempt_fails_at_once(cluster: Cluster, connect: Connect) -> None:
    async with connect(cluster) as env:
        with pytest.raises(StreamDoesNotExist) as caught:
            async with env.publisher("nope"):
                pass
        assert (caught.value.code, caught.value.stream) == (2, "nope")
        assert env.statistics()["publishers"] == 0


async def test_a_name_goes_on_with_the_brokers_sequence(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s").sequences["me"] = 41
    async with connect(cluster) as env, env.publisher("s", reference="me") as publisher:
        assert publisher.last_publishing_id == 41
        await publisher.publish(b"x")
    assert cluster.streams["s"].sequences["me"] == 42
    assert len(cluster.node.received(QueryPublisherSequence)) == 1


async def test_ids_of_ones_own_deduplicate(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s").sequences["me"] = 5
    async with connect(cluster) as env, env.publisher("s", reference="me") as publisher:
        await publisher.send_many([b"4", b"5", b"7"], publishing_ids=[4, 5, 7])
        await publisher.publish(b"9", publishing_id=9)
        await publisher.publish(b"10")
        with pytest.raises(ConfigurationError, match="must strictly increase"):
            await publisher.send(b"9", publishing_id=9)
        with pytest.raises(ConfigurationError, match="must strictly increase"):
            await publisher.send_many([b"", b""], publishing_ids=[12, 12])
    assert stored(cluster) == [b"7", b"9", b"10"]


async def test_a_message_that_never_fits_is_refused_before_it_is_sent(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.frame_max = 5000
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for send in (publisher.send, publisher.publish):
            with pytest.raises(MessageTooLarge, match=r"stream\.frame_max") as caught:
                await send(bytes(5000))
            assert caught.value.stream == "s"
        with pytest.raises(MessageTooLarge):
            await publisher.send_many([b"fits", bytes(5000)])
        await publisher.send_many([bytes(1000)] * 50)
    assert [len(body) for body in stored(cluster)] == [1000] * 50
    assert max(len(c.messages) for c in cluster.node.received(Publish)) == 4


async def test_wrong_bodies_are_refused_before_anything_is_sent(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for wrong in ("text", 5, None):
            with pytest.raises(ConfigurationError, match="bytes or an AmqpMessage"):
                await publisher.send(wrong)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="bytes or an AmqpMessage"):
                await publisher.send_many([b"ok", wrong])  # type: ignore[list-item]
        with pytest.raises(ConfigurationError, match="2 items for 1 bodies"):
            await publisher.send_many([b""], publishing_ids=[1, 2])
        await publisher.send_many([])
        await publisher.publish_many([])
    assert stored(cluster) == []


async def test_amqp_messages_and_buffers_are_sent_as_their_bytes(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.send(AmqpMessage.of(b"a"))
        await publisher.publish(AmqpMessage.of(b"b"))
        await publisher.send(memoryview(b"c"))  # type: ignore[arg-type]
        await publisher.send_many([b"d", AmqpMessage.of(b"e")])  # type: ignore[list-item]
    assert stored(cluster) == [encode_data(b"a"), encode_data(b"b"), b"c", b"d", encode_data(b"e")]


async def test_filter_values_need_a_server_that_knows_them(connect: Connect) -> None:
    old = Cluster(version="3.10.8")
    old.add("s")
    async with connect(old) as env, env.publisher("s") as publisher:
        with pytest.raises(NotSupported, match=r"RabbitMQ 3\.13"):
            await publisher.send(b"x", filter_value="eu")


async def test_filter_values_by_function_and_by_message(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    publisher_options: dict[str, Any] = {"filter_value": lambda body: body.decode()[:2] or None}
    async with connect(cluster) as env, env.publisher("s", **publisher_options) as publisher:
        await publisher.send(b"eu1")
        await publisher.send_many([b"us2", b""])
        await publisher.send(b"x", filter_value="as")
        with pytest.raises(ConfigurationError, match="32767"):
            await publisher.send(b"x", filter_value="x" * 40000)
    filters = [
        c.messages.filters for c in cluster.node.sessions[-1].received if hasattr(c, "messages")
    ]
    assert [value for frame in filters for value in frame] == ["eu", "us", None, "as"]


@pytest.mark.parametrize("compression", list(Compression))
async def test_pitfall_12_sub_entries_are_sent_again_as_they_were(
    cluster: Cluster, connect: Connect, compression: Compression
) -> None:
    """Pitfall 12: sub-entries are never batched anew when they are sent again."""
    cluster.add("s")
    cluster.node.unconfirming = True
    options: dict[str, Any] = {"sub_entry_size": 10, "compression": compression}
    async with connect(cluster) as env, env.publisher("s", reference="r", **options) as publisher:
        for body in numbers(25):
            await publisher.send(body)
        await anyio.wait_all_tasks_blocked()
        assert publisher.unconfirmed == 25
        [session] = cluster.node.live("publishing")
        before = batches_of(session)
        session.drop()
        await publisher.wait_for(State.RECOVERING)
        await publisher.wait_for(State.OPEN)
        cluster.node.unconfirming = False
        await publisher.send(b"25")
        await anyio.wait_all_tasks_blocked()
        [session] = cluster.node.live("publishing")
        session.send(PublishConfirm(0, (1, 2, 3)))
        await publisher.flush()
        after = batches_of(session)
    assert before == after[:3]
    assert [batch.records for batch in after] == [10, 10, 5, 1]
    assert [batch.publishing_id for batch in after] == [1, 2, 3, 4]


async def test_sub_entries_have_no_ids_of_ones_own(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s", sub_entry_size=10) as publisher:
        with pytest.raises(ConfigurationError, match="sub_entry_size"):
            await publisher.send_many([b"x"], publishing_ids=[1])
        await publisher.publish_many(numbers(25))
        assert publisher.unconfirmed == 0


async def test_an_exception_in_the_block_flushes_for_a_moment_only(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster, close_timeout=5.0) as env:
        start = anyio.current_time()
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with env.publisher("s", confirm_timeout=None) as publisher:
                await publisher.send(b"x")
                raise ZeroDivisionError
        assert anyio.current_time() - start < 12
        with pytest.raises(ConnectionClosed):
            await publisher.send(b"x")


@pytest.mark.medium
async def test_two_hundred_and_fifty_six_publishers_share_a_connection(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env:
        publishers = [env.publisher("s") for _ in range(257)]
        for publisher in publishers:
            await publisher.__aenter__()
        sessions = cluster.node.live("publishing")
        assert sorted(len(session.publishers) for session in sessions) == [1, 256]
        for publisher in publishers:
            await publisher.publish(b"x")
            await publisher.__aexit__(None, None, None)
        assert cluster.node.live("publishing") == []


async def test_what_happens_is_told(cluster: Cluster, connect: Connect, recorder: Recorder) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish_many(numbers(3))
    assert sum(event.messages for event in recorder.of(Published)) == 3
    assert [(e.messages, e.code) for e in recorder.of(Confirmed)] == [(3, 1)]
    states = [(e.kind, e.state) for e in recorder.of(StateChanged)]
    assert states == [
        ("environment", "open"),
        ("publisher", "connecting"),
        ("publisher", "open"),
        ("publisher", "closed"),
        ("environment", "closed"),
    ]
    assert cluster.node.received(DeclarePublisher)[0].reference is None
