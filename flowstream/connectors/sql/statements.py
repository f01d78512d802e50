"""SQL statements that SQLite and PostgreSQL share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowstream.connectors.sql.columns import Column, Kind


def quoted(name: str) -> str:
    """A name as a quoted identifier, which keeps upper and lower case."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(table: str) -> str:
    """`orders` or `schema.orders`."""
    return ".".join(map(quoted, table.split(".")))


def names_of(columns: Sequence[Column]) -> str:
    return ", ".join(quoted(column.name) for column in columns)


def create_table(
    table: str, columns: Sequence[Column], key: Sequence[str], types: Mapping[Kind, str]
) -> str:
    """Creates a table with these columns, if it does not exist; `key` is its primary key."""
    lines = [
        f"{quoted(column.name)} {types[column.kind]}{'' if column.optional else ' NOT NULL'}"
        for column in columns
    ]
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
    return f"CREATE TABLE IF NOT EXISTS {quoted_table(table)} ({', '.join(lines)})"


def insert_into(table: str, columns: Sequence[Column], rows: str, key: Sequence[str]) -> str:
    """Inserts `rows` (VALUES or SELECT). A row replaces an existing one with the same `key`."""
    statement = f"INSERT INTO {quoted_table(table)} ({names_of(columns)}) {rows}"
    if not key:
        return statement
    changes = ", ".join(
        f"{quoted(column.name)} = excluded.{quoted(column.name)}"
        for column in columns
        if column.name not in key
    )
    action = f"UPDATE SET {changes}" if changes else "NOTHING"
    return f"{statement} ON CONFLICT ({', '.join(map(quoted, key))}) DO {action}"
