"""Creating and deleting streams and super streams.

`tests/integration/test_odd_requests.py` compares the response codes with RabbitMQ's.
"""

from __future__ import annotations

import pytest

from flowstream.broker.catalog import MAX_PARTITIONS, Catalog, clean_arguments, clean_name
from flowstream.broker.records import (
    AddStream,
    AddSuperStream,
    Contents,
    DropStream,
    DropSuperStream,
    StreamRecord,
)
from flowstream.protocol import Code


def empty() -> Catalog:
    return Catalog(Contents([], {}, 1))


def test_names() -> None:
    assert clean_name("a\r\nb") == "ab"
    assert clean_name("é" * 127) == "é" * 127
    for refused in ("", "\n", "amq.x", "é" * 128):
        assert clean_name(refused) is None


def test_a_stream_has_a_shorter_name_than_a_super_stream() -> None:
    """RabbitMQ accepts the name, but cannot store the stream; here it is refused."""
    catalog = empty()
    assert catalog.create("s" * 233, {})[0] is Code.OK
    assert catalog.create("s" * 234, {}) == (Code.PRECONDITION_FAILED, [])
    assert catalog.create_super("x", ("a", "p" * 234), ("0", "1"), {}) == (
        Code.PRECONDITION_FAILED,
        [],
    )
    assert catalog.create_super("x" * 255, ("a",), ("0",), {})[0] is Code.OK
    assert list(catalog.streams) == ["s" * 233, "a"]


def test_unknown_arguments_are_left_out() -> None:
    assert clean_arguments({"x": "y", "max-age": "1D"}) == {"max-age": "1D"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"max-length-bytes": "-1"},
        {"stream-max-segment-size-bytes": "3000000001"},
        {"stream-filter-size-bytes": "15"},
        {"stream-filter-size-bytes": "256"},
        {"initial-cluster-size": "0"},
        {"max-age": "soon"},
        {"queue-leader-locator": "here"},
    ],
)
def test_bad_arguments(arguments: dict[str, str]) -> None:
    assert clean_arguments(arguments) is None


def test_streams_get_keys_that_are_never_used_again() -> None:
    catalog = Catalog(Contents([StreamRecord(4, "old", {})], {}, 9))
    assert catalog.create("new", {}) == (Code.OK, [AddStream(9, "new", {})])
    stream, changes = catalog.delete("new")
    assert stream is not None
    assert stream.deleted
    assert changes == [DropStream(9)]
    assert catalog.create("new", {}) == (Code.OK, [AddStream(10, "new", {})])
    assert catalog.delete("nope") == (None, [])


def test_a_super_stream_is_made_whole_or_not_at_all() -> None:
    catalog = empty()
    catalog.create("s-1", {})
    code, changes = catalog.create_super("s", ("s-0", "s-1"), ("0", "1"), {})
    assert (code, changes) == (Code.STREAM_ALREADY_EXISTS, [])
    assert list(catalog.streams) == ["s-1"]
    many = tuple(f"p{index}" for index in range(MAX_PARTITIONS + 1))
    for partitions, keys in ((("a", "a"), ("1", "2")), (("a",), ()), (("",), ("1",)), (many, many)):
        assert catalog.create_super("s", partitions, keys, {}) == (Code.PRECONDITION_FAILED, [])
    assert catalog.super_streams == {}


def test_a_super_stream() -> None:
    catalog = empty()
    code, changes = catalog.create_super("s", ("s-0", "s-1"), ("a", "b"), {"max-age": "1D"})
    assert code is Code.OK
    assert changes[-1] == AddSuperStream("s", (("s-0", "a"), ("s-1", "b")))
    assert catalog.streams["s-1"].arguments == {"max-age": "1D"}
    assert catalog.partitions("s") == ("s-0", "s-1")
    assert catalog.route("b", "s") == ("s-1",)
    assert catalog.route("c", "s") == ()
    assert catalog.route("b", "nope") is None
    assert catalog.partition_index("s", "s-1") == 1
    assert catalog.partition_index("s", "nope") is None
    _, changes = catalog.delete("s-0")
    assert changes[1:] == [DropSuperStream("s"), AddSuperStream("s", (("s-1", "b"),))]
    streams, changes = catalog.delete_super("s")
    assert streams is not None
    assert [stream.name for stream in streams] == ["s-1"]
    assert changes[0] == DropSuperStream("s")
    assert catalog.delete_super("s") == (None, [])
    assert catalog.streams == {}
