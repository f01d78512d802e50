"""The statements that both databases share: names are quoted, keys replace."""

from __future__ import annotations

import sqlite3

import pytest

from flowstream.connectors.sql.columns import Column
from flowstream.connectors.sql.sqlite import TYPES
from flowstream.connectors.sql.statements import (
    create_table,
    insert_into,
    names_of,
    quoted,
    quoted_table,
)

COLUMNS = (Column("id", "int"), Column('the "name"', "text", optional=True))


@pytest.mark.parametrize("name", ["plain", "select", "Upper", 'quo"te', "x; DROP TABLE orders"])
def test_any_name_is_one_identifier(name: str) -> None:
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE TABLE {quoted(name)} ({quoted(name)} INTEGER)")
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [(name,)]
    assert database.execute(f"SELECT * FROM {quoted(name)}").description[0][0] == name
    database.close()


def test_a_table_may_have_a_schema() -> None:
    assert quoted_table("orders") == '"orders"'
    assert quoted_table("shop.orders") == '"shop"."orders"'
    assert names_of(COLUMNS) == '"id", "the ""name"""'


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ((), [(1, "a"), (1, "b"), (2, None)]),
        (("id",), [(1, "b"), (2, None)]),
        (("id", 'the "name"'), [(1, "a"), (1, "b"), (2, None)]),
    ],
)
def test_a_row_replaces_the_one_with_its_key(
    key: tuple[str, ...], rows: list[tuple[int, str | None]]
) -> None:
    database = sqlite3.connect(":memory:")
    for _ in range(2):  # the second time there is one already
        database.execute(create_table("main.orders", COLUMNS, key, TYPES))
    insert = insert_into("main.orders", COLUMNS, "VALUES (?, ?)", key)
    database.executemany(insert, [(1, "a"), (1, "b"), (2, None)])
    assert database.execute("SELECT * FROM orders ORDER BY 1, 2").fetchall() == rows
    if key != ("id",):  # SQLite gives an INTEGER PRIMARY KEY that is NULL the next number
        with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
            database.execute(insert, (None, "a"))
    database.close()
