"""Workers of one stream copy their rows side by side, and a zombie's rows vanish."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream import PostgresSink
from flowstream.connectors.sql.transaction import Written, write_batch
from tests.support.postgres import Postgres

ROWS = [(n,) for n in range(4)]


def numbers(postgres: Postgres, key: str | None = None) -> tuple[str, PostgresSink]:
    """A database, and a sink into a table of numbers in it."""
    url = postgres.database()
    sink = PostgresSink(url, "numbers", columns={"n": int}, key=key, create=True)
    sink.initialize()
    return url, sink


def write(database: Any, *offsets: int) -> Written:
    rows = [(offset,) for offset in offsets]
    places = [("s", offset, 5) for offset in offsets]
    return write_batch(database, "shop/load", rows, places, {})


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "n"])
def test_what_is_done_meanwhile_is_not_written_again(postgres: Postgres, key: str | None) -> None:
    url, sink = numbers(postgres, key=key)
    first, second = sink.connect(), sink.connect()
    assert write(first, 0, 1) == Written([0, 1], [], [])
    assert write(second, 1, 2) == Written([1], [0], [])  # a process that should be dead
    assert write(first, 2, 3, 3) == Written([1], [0, 2], [])
    assert write(second, 0, 1, 2, 3) == Written([], [0, 1, 2, 3], [])
    found = postgres.ask(url, "SELECT n FROM numbers ORDER BY n")
    assert found == ROWS
    assert postgres.ask(url, "SELECT done FROM flowstream_offsets") == [("0-3",)]
    first.close()
    second.close()


@pytest.mark.slow
def test_what_is_refused_fails_alone_after_a_copy_of_all(postgres: Postgres) -> None:
    url, sink = numbers(postgres)
    postgres.ask(url, "ALTER TABLE numbers ADD CHECK (n <> 500)")
    database = sink.connect()
    result = write(database, *range(1000))
    assert [index for index, _ in result.refused] == [500]
    assert len(result.written) == 999
    database.close()
    assert postgres.ask(url, "SELECT count(*), sum(n) FROM numbers") == [(999, 499_000)]
    assert postgres.ask(url, "SELECT done FROM flowstream_offsets") == [("0-499,501-999",)]


@pytest.mark.slow
def test_an_error_before_the_commit_is_not_in_doubt(postgres: Postgres) -> None:
    """Both are sent together, so that others wait for the lock only once."""
    url, sink = numbers(postgres)
    postgres.ask(url, "ALTER TABLE flowstream_offsets ADD CHECK (done <> '0-1')")
    database = sink.connect()
    with pytest.raises(Exception, match="check constraint"):
        write(database, 0, 1)
    assert not database.in_doubt
    assert write(database, 0, 1, 2) == Written([0, 1, 2], [], [])
    assert not database.in_doubt
    database.close()
    assert postgres.ask(url, "SELECT count(*) FROM numbers") == [(3,)]
