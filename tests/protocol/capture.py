"""Records sessions with a real RabbitMQ, byte for byte: `python -m tests.protocol.capture`.

Each session of `SESSIONS` is run against every broker in build/brokers.json and kept as
vectors/<version>/<session>.txt: one line per write (`> hex`) and per read (`< hex`), in order. The
answers are the oracle: the codec must give their very bytes back, and the state machine must take
the whole conversation in both roles (test_vectors.py).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from flowstream import protocol as p
from tests.brokers.running import Broker, running

VECTORS = Path(__file__).parent / "vectors"
STREAM = "vectors"
SUPER = "vectors-super"


T = TypeVar("T")


class Session:
    """A blocking client that keeps what goes over its socket."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.lines: list[str] = []
        self.connection = p.Connection(p.Role.CLIENT, heartbeat=0)
        self.inbox: list[p.Command] = []
        self._socket = socket.create_connection((broker.host, broker.port), timeout=10)
        self._id = 0

    def write(self, data: bytes) -> None:
        self.lines.append(f"> {data.hex()}")
        self._socket.sendall(data)

    def send(self, command: p.Command) -> None:
        self.write(self.connection.send(command))

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def until(self, kind: type[T], match: Callable[[T], bool] = lambda _: True) -> T:
        """The next command of this kind that matches; the others stay in the inbox."""
        while True:
            for command in self.inbox:
                if isinstance(command, kind) and match(command):
                    self.inbox.remove(command)
                    return command
            assert self.read(), f"the server hung up; {self.inbox} came last"

    def read(self) -> bool:
        data = self._socket.recv(65536)
        if not data:
            return False
        self.lines.append(f"< {data.hex()}")
        self.inbox += self.connection.receive(data)
        return True

    def ask(self, command: p.Command) -> p.Command:
        self.send(command)
        asked = command.correlation_id  # type: ignore[union-attr]
        return self.until(  # type: ignore[return-value]
            object,
            lambda c: (
                getattr(c, "correlation_id", None) == asked
                and not isinstance(c, p.ConsumerUpdate | p.Close)
            ),
        )

    def hang_up(self) -> None:
        self._socket.settimeout(10)
        with contextlib.suppress(OSError):
            while self.read():
                pass
        self._socket.close()


def greet(s: Session, *, password: bytes = b"guest", mechanism: str = "PLAIN") -> p.Command:
    s.ask(p.PeerProperties(s.next_id(), {"product": "flowstream", "information": "日本"}))
    s.ask(p.SaslHandshake(s.next_id()))
    return s.ask(p.SaslAuthenticate(s.next_id(), mechanism, b"\0guest\0" + password))


def login(s: Session, *, heartbeat: int = 0, virtual_host: str = "/") -> None:
    greet(s)
    tune = s.until(p.Tune)
    s.send(p.TuneResponse(tune.frame_max, heartbeat))
    s.ask(p.Open(s.next_id(), virtual_host))


def exchange_versions(s: Session) -> None:
    s.ask(p.ExchangeCommandVersions(s.next_id(), p.CLIENT_VERSIONS))


def close(s: Session) -> None:
    s.ask(p.Close(s.next_id(), p.OK, "bye"))
    s.hang_up()


def streams(s: Session) -> None:
    """Create, describe and delete; the errors of each; MetadataUpdate."""
    login(s)
    if s.broker.version >= (3, 11):
        exchange_versions(s)
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    arguments = {"max-length-bytes": "1000000", "queue-leader-locator": "client-local"}
    for wanted in (arguments, arguments, {"max-age": "1h"}):
        s.ask(p.CreateStream(s.next_id(), STREAM, wanted))
    s.ask(p.CreateStream(s.next_id(), "", {}))
    s.ask(p.Metadata(s.next_id(), (STREAM, "no-such-stream")))
    s.ask(p.DeclarePublisher(s.next_id(), 1, None, STREAM))
    s.ask(p.DeclarePublisher(s.next_id(), 1, None, STREAM))
    s.ask(p.DeclarePublisher(s.next_id(), 2, "a", "no-such-stream"))
    s.send(p.Heartbeat())
    if s.broker.version >= (3, 11):
        s.ask(p.StreamStats(s.next_id(), STREAM))
        s.ask(p.StreamStats(s.next_id(), "no-such-stream"))
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    s.until(p.MetadataUpdate)
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    close(s)


def publishing(s: Session) -> None:
    """Every kind of entry, confirms and errors, deduplication, then all of it delivered."""
    login(s)
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    s.ask(p.CreateStream(s.next_id(), STREAM, {}))
    s.ask(p.DeclarePublisher(s.next_id(), 1, "référence", STREAM))
    bodies = [b"", b"one", p.encode_data(b"two"), bytes(300)]
    sent = 0

    def publish(command: p.Command) -> None:
        nonlocal sent
        before = sent
        sent += len(command.messages)  # type: ignore[union-attr]
        s.send(command)
        while before < sent:
            before += len(s.until(p.PublishConfirm).publishing_ids)

    publish(p.Publish(1, [(10 + i, body) for i, body in enumerate(bodies)]))
    for i, compression in enumerate(p.Compression):
        publish(p.Publish(1, [p.sub_entry(20 + i, bodies, compression)]))
    publish(p.Publish(1, [(30, b"mixed"), p.sub_entry(31, [b"in", b"it"]), (40, b"end")]))
    publish(p.Publish(1, [(40, b"dropped as a duplicate")]))
    if s.broker.version >= (3, 13):
        filtered = [(50, "é", b"filtered"), (51, None, b"unfiltered"), (52, "", b"empty")]
        publish(p.PublishFiltered(1, filtered))
    s.ask(p.QueryPublisherSequence(s.next_id(), "référence", STREAM))
    s.ask(p.QueryPublisherSequence(s.next_id(), "unknown", STREAM))
    s.ask(p.QueryPublisherSequence(s.next_id(), "unknown", "no-such-stream"))
    s.send(p.Publish(99, [(1, b"nobody declared this"), (2, b"publisher")]))
    s.until(p.PublishError)
    s.ask(p.DeletePublisher(s.next_id(), 1))
    s.ask(p.DeletePublisher(s.next_id(), 1))
    total = 31 if s.broker.version >= (3, 13) else 28
    s.ask(p.Subscribe(s.next_id(), 7, STREAM, p.OffsetSpec.first(), 10, {}))
    received = 0
    while received < total:
        received += p.Chunk.parse(s.until(p.Deliver).chunk).records
        s.send(p.Credit(7, 1))
    s.ask(p.Unsubscribe(s.next_id(), 7))
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    close(s)


def consuming(s: Session) -> None:
    """Offsets of every kind, stored and queried; credits; single active consumers."""
    login(s)
    if s.broker.version >= (3, 11):
        exchange_versions(s)
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    s.ask(p.CreateStream(s.next_id(), STREAM, {}))
    s.ask(p.DeclarePublisher(s.next_id(), 0, None, STREAM))
    for i in range(3):
        s.send(p.Publish(0, [(i, b"message %d" % i)]))
        s.until(p.PublishConfirm)
    kinds = ("first", "last", "next")
    specs = [getattr(p.OffsetSpec, kind)() for kind in kinds]
    specs += [p.OffsetSpec.offset(1), p.OffsetSpec.timestamp(0)]
    for i, spec in enumerate(specs):
        s.ask(p.Subscribe(s.next_id(), i, STREAM, spec, 10, {"identifier": f"id-{i}"}))
        if spec.kind is not p.OffsetKind.NEXT:
            s.until(p.Deliver)
    s.ask(p.Subscribe(s.next_id(), 0, STREAM, specs[0], 10, {}))
    s.ask(p.Subscribe(s.next_id(), 200, "no-such-stream", specs[0], 10, {}))
    s.send(p.Credit(201, 1))
    s.until(p.CreditError)
    for i in range(len(specs)):
        s.ask(p.Unsubscribe(s.next_id(), i))
    s.ask(p.Unsubscribe(s.next_id(), 0))
    s.send(p.StoreOffset("größe", STREAM, 2))
    answer = s.ask(p.QueryOffset(s.next_id(), "größe", STREAM))
    while answer.code != p.OK:  # type: ignore[union-attr]
        answer = s.ask(p.QueryOffset(s.next_id(), "größe", STREAM))
    s.ask(p.QueryOffset(s.next_id(), "unknown", STREAM))
    s.ask(p.QueryOffset(s.next_id(), "unknown", "no-such-stream"))
    if s.broker.version >= (3, 11):
        single_active_consumers(s)
    if s.broker.version >= (4, 3):
        for spec in specs:
            s.ask(p.ResolveOffsetSpec(s.next_id(), STREAM, spec, {"match-unfiltered": "true"}))
            s.ask(p.ResolveOffsetSpec(s.next_id(), "no-such-stream", spec, {}))
    s.ask(p.DeleteStream(s.next_id(), STREAM))
    close(s)


def single_active_consumers(s: Session) -> None:
    properties = {"name": "group", "single-active-consumer": "true"}
    for i in (1, 2):
        s.ask(p.Subscribe(s.next_id(), i, STREAM, p.OffsetSpec.next(), 10, properties))
    first = s.until(p.ConsumerUpdate, lambda update: update.active)
    s.send(p.ConsumerUpdateResponse(first.correlation_id, p.OK, p.OffsetSpec.offset(1)))
    s.until(p.Deliver)
    s.ask(p.Unsubscribe(s.next_id(), first.subscription_id))
    second = s.until(p.ConsumerUpdate, lambda update: update.active)
    s.send(p.ConsumerUpdateResponse(second.correlation_id, p.OK, p.OffsetSpec.first()))
    s.until(p.Deliver)
    s.ask(p.Unsubscribe(s.next_id(), second.subscription_id))


def super_streams(s: Session) -> None:
    """Partitions and routes; before 3.13 the super stream is made over the management API."""
    login(s)
    keys = ("é", "b", "c")
    names = tuple(f"{SUPER}-{key}" for key in keys)
    if s.broker.version >= (3, 13):
        s.ask(p.DeleteSuperStream(s.next_id(), SUPER))
        s.ask(p.CreateSuperStream(s.next_id(), SUPER, names, keys, {"max-age": "1h"}))
        s.ask(p.CreateSuperStream(s.next_id(), SUPER, names, keys, {}))
    else:
        declare_super_stream(s.broker, dict(zip(keys, names, strict=True)))
    s.ask(p.Partitions(s.next_id(), SUPER))
    s.ask(p.Route(s.next_id(), "é", SUPER))
    s.ask(p.Route(s.next_id(), "no-such-key", SUPER))
    if s.broker.version >= (3, 13):
        s.ask(p.DeleteSuperStream(s.next_id(), SUPER))
    else:
        for name in names:
            s.ask(p.DeleteStream(s.next_id(), name))
        s.broker.api("DELETE", f"exchanges/%2f/{SUPER}")
    s.ask(p.Partitions(s.next_id(), "no-such-super-stream"))
    s.ask(p.Route(s.next_id(), "key", "no-such-super-stream"))
    close(s)


def declare_super_stream(broker: Broker, partitions: dict[str, str]) -> None:
    exchange = {"type": "direct", "durable": True, "arguments": {"x-super-stream": True}}
    broker.api("PUT", f"exchanges/%2f/{SUPER}", exchange)
    for order, (key, name) in enumerate(partitions.items()):
        queue = {"durable": True, "arguments": {"x-queue-type": "stream"}}
        broker.api("PUT", f"queues/%2f/{quote(name)}", queue)
        binding = {"routing_key": key, "arguments": {"x-stream-partition-order": order}}
        broker.api("POST", f"bindings/%2f/e/{SUPER}/q/{quote(name)}", binding)


def heartbeats(s: Session) -> None:
    """The server's heartbeat, and its Close after a command it does not know."""
    login(s, heartbeat=1)
    s.until(p.Heartbeat)
    s.write(bytes.fromhex("0000000800ff000100000001"))
    s.until(p.Close)
    s.hang_up()


def wrong_password(s: Session) -> None:
    greet(s, password=b"wrong")
    s.hang_up()


def wrong_mechanism(s: Session) -> None:
    greet(s, mechanism="NONSENSE")
    s.hang_up()


def wrong_virtual_host(s: Session) -> None:
    login(s, virtual_host="no-such-host")
    s.hang_up()


SESSIONS: tuple[Callable[[Session], None], ...] = (
    streams,
    publishing,
    consuming,
    super_streams,
    heartbeats,
    wrong_password,
    wrong_mechanism,
    wrong_virtual_host,
)


def main() -> None:
    for name, (broker, *_) in running().items():
        folder = VECTORS / name
        folder.mkdir(parents=True, exist_ok=True)
        for run in SESSIONS:
            session = Session(broker)
            run(session)
            path = folder / f"{run.__name__}.txt"
            path.write_text("\n".join(session.lines) + "\n")
            print(f"{path.relative_to(VECTORS.parent)}: {len(session.lines)} lines")


if __name__ == "__main__":
    main()
