"""What to ask in a way that nobody should, and what is answered: data for test_odd_requests.

A case is a list of steps: a command, and its answers as `say` writes them, separated by "; ". The
answers are those of RabbitMQ 4.3 and of the embedded broker; `other` has those of brokers that
answer otherwise. NOT_ASKED is for requests that break a connection's process inside the server:
RabbitMQ then drops the connection without a word, and 3.10 its whole listener after some of them.
The name S stands for a stream of the test's own.

Not asked at all: stream names over 230 bytes. RabbitMQ takes them and then tries for ever to make
a directory whose name is too long; the embedded broker refuses those over 233 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import pack

from flowstream.protocol import (
    Command,
    ConsumerUpdateResponse,
    CreateStream,
    CreateSuperStream,
    Credit,
    DeclarePublisher,
    DeletePublisher,
    DeleteStream,
    DeleteSuperStream,
    Metadata,
    OffsetSpec,
    Partitions,
    Publish,
    PublishFiltered,
    QueryOffset,
    QueryPublisherSequence,
    ResolveOffsetSpec,
    Route,
    StoreOffset,
    StreamStats,
    Subscribe,
    Unsubscribe,
)

NOT_ASKED = "not asked"
NONE_BEFORE_4_3 = {"3.10": "close 13 unknown frame", "4.0": "close 13 unknown frame"}
GUEST = b"\0guest\0guest"
NAME_OF_256 = "x" * 256


@dataclass(frozen=True)
class Step:
    send: Command | bytes
    answers: str
    other: dict[str, str] = field(default_factory=dict)

    def answers_of(self, broker: str) -> str:
        return self.other.get(broker, self.answers)


def step(send: Command | bytes, answers: str, **other: str) -> Step:
    """`other` names brokers as v3_10, v4_0, v4_3 and embedded."""
    return Step(
        send, answers, {name.lstrip("v").replace("_", "."): it for name, it in other.items()}
    )


def raw(key: int, version: int, body: bytes = b"") -> bytes:
    return pack(">IHH", 4 + len(body), key, version) + body


def publish(*entries: bytes) -> bytes:
    return raw(2, 1, pack(">BI", 0, len(entries)) + b"".join(entries))


def simple(publishing_id: int) -> bytes:
    return pack(">QI", publishing_id, 1) + b"x"


def sub_entry(publishing_id: int, compression: int, records: int, size: int, data: bytes) -> bytes:
    kind = 0x80 | compression << 4
    return pack(">QBHII", publishing_id, kind, records, size, len(data)) + data


ONE_MESSAGE = pack(">I", 1) + b"x"
CREATE = step(CreateStream(1, "S", {}), "create_stream 1")
DELETE = step(DeleteStream(9, "S"), "delete_stream 1")
DECLARE = step(DeclarePublisher(2, 0, None, "S"), "declare_publisher 1")
TOLD = "delete_stream 1; metadata_update 6"


def _creates(arguments: dict[str, str], answer: str, **other: str) -> list[Step]:
    return [step(CreateStream(1, "S", arguments), answer, **other)]


def _refused(arguments: dict[str, str]) -> list[Step]:
    """The embedded broker refuses what the real one breaks on."""
    return _creates(arguments, "create_stream 17", v3_10=NOT_ASKED, v4_0="closed", v4_3="closed")


STREAMS: dict[str, list[Step]] = {
    "create again": [
        CREATE,
        step(CreateStream(2, "S", {}), "create_stream 5"),
        step(CreateStream(3, "S", {"unknown": "x"}), "create_stream 5"),
        step(CreateStream(4, "S", {"initial-cluster-size": "1"}), "create_stream 17"),
        step(CreateStream(5, "S", {"queue-leader-locator": "balanced"}), "create_stream 17"),
        step(CreateStream(6, "S", {"max-length-bytes": "1000000"}), "create_stream 17"),
        step(CreateStream(7, "S", {"max-age": "1D"}), "create_stream 17"),
        step(
            CreateStream(8, "S", {"stream-max-segment-size-bytes": "1000000"}), "create_stream 17"
        ),
        step(
            CreateStream(9, "S", {"stream-filter-size-bytes": "32"}),
            "create_stream 17",
            v3_10="create_stream 5",
            v4_0="create_stream 5",
        ),
        DELETE,
        step(DeleteStream(10, "S"), "delete_stream 2"),
    ],
    "no name": [step(CreateStream(1, "", {}), "create_stream 17")],
    "reserved name": [step(CreateStream(1, "amq.x", {}), "create_stream 17")],
    "line ends in the name": [
        step(CreateStream(1, "S\r\nb", {}), "create_stream 1"),
        step(DeleteStream(2, "S\r\nb"), "delete_stream 2"),
        step(DeleteStream(3, "Sb"), "delete_stream 1"),
    ],
    "delete an unknown stream": [step(DeleteStream(1, "S"), "delete_stream 2")],
    "max-length-bytes 0": [*_creates({"max-length-bytes": "0"}, "create_stream 1"), DELETE],
    "max-length-bytes abc": _refused({"max-length-bytes": "abc"}),
    "max-length-bytes 1.5": _refused({"max-length-bytes": "1.5"}),
    "segment size x": _refused({"stream-max-segment-size-bytes": "x"}),
    "segment size 3 GB": _creates(
        {"stream-max-segment-size-bytes": "3000000001"}, "create_stream 17"
    ),
    "max-age 1D": [*_creates({"max-age": "1D"}, "create_stream 1"), DELETE],
    "max-age x": _creates(
        {"max-age": "x"},
        "create_stream 17",
        v3_10=NOT_ASKED,
        v4_0="closed",
        v4_3="create_stream 1",
    ),
    "max-age 1W": _creates(
        {"max-age": "1W"},
        "create_stream 1",
        embedded="create_stream 17",
    ),
    "cluster size 0": _creates({"initial-cluster-size": "0"}, "create_stream 17"),
    "cluster size x": _refused({"initial-cluster-size": "x"}),
    "cluster size 5": [*_creates({"initial-cluster-size": "5"}, "create_stream 1"), DELETE],
    "locator x": _creates({"queue-leader-locator": "x"}, "create_stream 17"),
    "locator random": [*_creates({"queue-leader-locator": "random"}, "create_stream 1"), DELETE],
    "filter size 15": _creates(
        {"stream-filter-size-bytes": "15"}, "create_stream 17", v3_10="create_stream 1"
    ),
    "filter size 256": _creates(
        {"stream-filter-size-bytes": "256"}, "create_stream 17", v3_10="create_stream 1"
    ),
    "told of a deletion: publisher": [CREATE, DECLARE, step(DeleteStream(3, "S"), TOLD)],
    "told of a deletion: after QueryOffset": [
        CREATE,
        step(QueryOffset(2, "r", "S"), "query_offset 19: 0"),
        step(DeleteStream(3, "S"), TOLD),
    ],
    "told of a deletion: after StoreOffset": [
        CREATE,
        step(StoreOffset("r", "S", 3), ""),
        step(DeleteStream(3, "S"), TOLD),
    ],
    "not told of a deletion: publisher deleted": [
        CREATE,
        DECLARE,
        step(DeletePublisher(3, 0), "delete_publisher 1"),
        DELETE,
    ],
    "not told of a deletion: QueryPublisherSequence": [
        CREATE,
        step(QueryPublisherSequence(2, "r", "S"), "query_publisher_sequence 1: 0"),
        DELETE,
    ],
    "work on a deleted stream": [
        CREATE,
        DECLARE,
        step(Subscribe(3, 0, "S", OffsetSpec.first(), 1, {}), "subscribe 1"),
        step(DeleteStream(4, "S"), TOLD),
        step(Publish(0, [(1, b"x")]), "publish_error 18: 1"),
        step(Credit(0, 1), "credit 4"),
        step(Unsubscribe(5, 0), "unsubscribe 4"),
        step(DeletePublisher(6, 0), "delete_publisher 18"),
    ],
    "metadata": [
        step(Metadata(1, ()), "metadata 0:"),
        CREATE,
        step(Metadata(2, ("S", "S", "nope")), "metadata 1: nope=2@65535 S=1@0"),
        step(Metadata(3, ("",)), "metadata 0: =2@65535"),
        DELETE,
    ],
    "statistics": [
        step(StreamStats(1, "S"), "stream_stats 2:", v3_10="close 13 unknown frame"),
        CREATE,
        step(
            StreamStats(2, "S"),
            "stream_stats 1: committed_chunk_id=-1 committed_offset=-1 first_chunk_id=-1"
            " last_chunk_id=-1",
            v4_0="stream_stats 1: committed_chunk_id=-1 first_chunk_id=-1 last_chunk_id=-1",
        ),
        DELETE,
    ],
}

PUBLISHERS: dict[str, list[Step]] = {
    "declare": [
        CREATE,
        step(DeclarePublisher(2, 0, None, "nope"), "declare_publisher 2"),
        step(DeclarePublisher(3, 0, "r", "S"), "declare_publisher 1"),
        step(DeclarePublisher(4, 0, None, "S"), "declare_publisher 17"),
        step(DeclarePublisher(5, 1, "r", "S"), "declare_publisher 17"),
        step(DeclarePublisher(6, 2, "x" * 255, "S"), "declare_publisher 1"),
        step(
            DeclarePublisher(7, 1, NAME_OF_256, "S"),
            "declare_publisher 17",
            v3_10="declare_publisher 1",
        ),
        step(
            DeclarePublisher(8, 3, NAME_OF_256, "nope"),
            "declare_publisher 17",
            v3_10="declare_publisher 2",
        ),
        step(DeletePublisher(9, 9), "delete_publisher 18"),
        step(DeletePublisher(10, 0), "delete_publisher 1"),
        step(DeletePublisher(11, 0), "delete_publisher 18"),
    ],
    "publish without a publisher": [
        step(Publish(77, [(5, b"a"), (6, b"b")]), "publish_error 18: 5 6"),
        step(Publish(77, []), "publish_error 18:"),
    ],
    "publish filtered without a publisher": [
        step(
            PublishFiltered(77, [(5, "f", b"a"), (6, None, b"b")]),
            "publish_error 18: 5 6",
            v3_10="close 13 unknown frame",
            v4_0="closed",
        ),
    ],
    "publish nothing": [CREATE, DECLARE, step(Publish(0, []), "")],
    "unsound sub-entries": [
        CREATE,
        DECLARE,
        step(publish(sub_entry(1, 5, 1, 10, b"data")), "publish_error 17: 1", v3_10="", v4_0=""),
        step(
            publish(simple(2), sub_entry(3, 0, 0, 5, ONE_MESSAGE), simple(4)),
            "publish_error 17: 3 4",
            v3_10="",
            v4_0="",
        ),
        step(publish(sub_entry(5, 0, 3, 5, ONE_MESSAGE)), "publish_error 17: 5", v3_10="", v4_0=""),
        step(publish(sub_entry(6, 1, 1, 70 << 20, b"x")), "publish_error 17: 6", v3_10="", v4_0=""),
        step(publish(sub_entry(7, 1, 1, 70, b"")), "publish_error 17: 7", v3_10="", v4_0=""),
        step(publish(sub_entry(8, 0, 1, 5, ONE_MESSAGE)), ""),
    ],
    "query a sequence": [
        step(QueryPublisherSequence(1, "r", "S"), "query_publisher_sequence 2: 0"),
        CREATE,
        step(QueryPublisherSequence(2, "r", "S"), "query_publisher_sequence 1: 0"),
        step(QueryPublisherSequence(3, "x" * 300, "S"), "query_publisher_sequence 1: 0"),
    ],
}

CONSUMERS: dict[str, list[Step]] = {
    "subscribe": [
        step(Subscribe(1, 0, "S", OffsetSpec.first(), 1, {}), "subscribe 2"),
        CREATE,
        step(Subscribe(2, 0, "S", OffsetSpec.first(), 1, {}), "subscribe 1"),
        step(Subscribe(3, 0, "S", OffsetSpec.first(), 1, {}), "subscribe 3"),
        step(Subscribe(4, 1, "S", OffsetSpec.offset(2**64 - 1), 1, {}), "subscribe 1"),
        step(Subscribe(5, 2, "S", OffsetSpec.timestamp(-5), 1, {}), "subscribe 1"),
        step(Subscribe(6, 3, "S", OffsetSpec.timestamp(2**62), 0, {}), "subscribe 1"),
        step(Subscribe(7, 4, "S", OffsetSpec.first(), 65535, {}), "subscribe 1"),
        step(
            Subscribe(8, 5, "S", OffsetSpec.first(), 1, {"name": NAME_OF_256}),
            "subscribe 17",
            v3_10="subscribe 1",
        ),
        step(
            Subscribe(9, 6, "S", OffsetSpec.first(), 1, {"single-active-consumer": "true"}),
            "subscribe 17",
            v3_10="subscribe 1",
        ),
        step(
            Subscribe(10, 7, "S", OffsetSpec.first(), 1, {"single-active-consumer": "TRUE"}),
            "subscribe 1",
        ),
        step(Unsubscribe(11, 99), "unsubscribe 4"),
        step(Unsubscribe(12, 0), "unsubscribe 1"),
        step(Unsubscribe(13, 0), "unsubscribe 4"),
        step(Credit(0, 1), "credit 4"),
        step(Credit(1, 65535), ""),
    ],
    "subscribe nowhere": [
        CREATE,
        step(Subscribe(2, 0, "S", OffsetSpec.none(), 1, {}), "closed", v3_10=NOT_ASKED),
    ],
    "offsets": [
        step(QueryOffset(1, "r", "S"), "query_offset 2: 0"),
        CREATE,
        step(QueryOffset(2, "r", "S"), "query_offset 19: 0"),
        step(StoreOffset("r", "S", 0), ""),
        step(QueryOffset(3, "r", "S"), "query_offset 1: 0"),
        step(StoreOffset("r", "S", 5), ""),
        step(StoreOffset("r", "S", 2), ""),
        step(QueryOffset(4, "r", "S"), "query_offset 1: 2"),
        step(StoreOffset("", "S", 7), ""),
        step(QueryOffset(5, "", "S"), "query_offset 1: 7"),
        step(StoreOffset("r", "nope", 1), ""),
        step(StoreOffset("big", "S", 2**64 - 1), ""),
        step(QueryOffset(6, "big", "S"), f"query_offset 1: {2**64 - 1}"),
        step(StoreOffset(NAME_OF_256, "S", 7), "", v3_10=NOT_ASKED),
        step(QueryOffset(7, NAME_OF_256, "S"), "query_offset 19: 0"),
    ],
    "resolve an offset": [
        step(
            ResolveOffsetSpec(1, "S", OffsetSpec.first(), {}),
            "resolve_offset_spec 2: 0",
            v3_10=NONE_BEFORE_4_3["3.10"],
            v4_0=NONE_BEFORE_4_3["4.0"],
        ),
        CREATE,
        *(
            step(ResolveOffsetSpec(2, "S", spec, {}), "resolve_offset_spec 1: 0")
            for spec in (
                OffsetSpec.first(),
                OffsetSpec.last(),
                OffsetSpec.next(),
                OffsetSpec.offset(5),
                OffsetSpec.timestamp(5),
            )
        ),
        step(ResolveOffsetSpec(3, "S", OffsetSpec.none(), {}), "closed"),
    ],
    "an answer to no question": [
        step(ConsumerUpdateResponse(77, 1, OffsetSpec.none()), "", v3_10=NOT_ASKED),
        step(ConsumerUpdateResponse(77, 1, OffsetSpec.first()), "", v3_10=NOT_ASKED),
    ],
}


def _super(correlation_id: int, partitions: int, keys: int, name: str = "S") -> CreateSuperStream:
    names = tuple(f"S-{index}" for index in range(partitions))
    return CreateSuperStream(correlation_id, name, names, tuple(map(str, range(keys))), {})


SUPER_STREAMS: dict[str, list[Step]] = {
    "one life": [
        step(Partitions(1, "S"), "partitions 2:", v3_10=NOT_ASKED),
        step(Route(2, "k", "S"), "route 2:", v3_10=NOT_ASKED),
        step(_super(3, 2, 2), "create_super_stream 1", v3_10="close 13 unknown frame"),
        step(_super(4, 2, 2), "create_super_stream 5"),
        step(_super(5, 1, 1, "Sb"), "create_super_stream 5"),
        step(Partitions(6, "S"), "partitions 1: S-0 S-1"),
        step(Route(7, "1", "S"), "route 1: S-1"),
        step(Route(8, "zz", "S"), "route 1:"),
        step(DeleteStream(9, "S-0"), "delete_stream 1"),
        step(Partitions(10, "S"), "partitions 1: S-1"),
        step(Route(11, "0", "S"), "route 1:"),
        step(DeleteSuperStream(12, "S"), "delete_super_stream 1"),
        step(DeleteSuperStream(13, "S"), "delete_super_stream 2"),
    ],
    "without partitions": [
        step(_super(1, 0, 0), "create_super_stream 1", v3_10="close 13 unknown frame"),
        step(DeleteSuperStream(2, "S"), "delete_super_stream 1"),
    ],
    "bad": [
        step(_super(1, 1, 2), "create_super_stream 17", v3_10="close 13 unknown frame"),
        step(CreateSuperStream(2, "S", ("S-0", "S-0"), ("0", "1"), {}), "create_super_stream 17"),
        step(_super(3, 1, 1, ""), "create_super_stream 17"),
        step(_super(4, 1, 1, "amq.x"), "create_super_stream 17"),
        step(CreateSuperStream(5, "S", ("",), ("0",), {}), "create_super_stream 17"),
        step(_super(6, 1001, 1001), "create_super_stream 17", v4_0=NOT_ASKED),
    ],
    "of the name of a stream": [
        CREATE,
        step(_super(2, 1, 1), "create_super_stream 1", v3_10="close 13 unknown frame"),
        step(DeleteSuperStream(3, "S"), "delete_super_stream 1"),
        DELETE,
    ],
}
