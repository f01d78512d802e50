"""ExactlyOnce: for handlers that write to a database in their own transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Annotated, Any, TypeVar

from flowstream.connectors.sql.offsets_table import (
    CREATE,
    POSTGRES,
    SQLITE,
    Claim,
    OffsetsTable,
    Place,
)
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, Message
from flowstream.schema import NAME, make, takes
from flowstream.texts import type_name

T = TypeVar("T")


@dataclass(frozen=True)
class ExactlyOnceArguments:
    """What `ExactlyOnce(...)` takes."""

    reference: Annotated[str, NAME, "the name that offsets are stored under; one for each handler"]


class ExactlyOnce:
    """Lets a handler write each message exactly once, in its own transaction.

        once = ExactlyOnce("orders/load")

        @pipeline.batcher(size=500)
        def load(batch: Batch[Order], database: sqlite3.Connection) -> None:
            with database:
                for message in once.claim(database, batch):
                    database.execute("INSERT ...", ...)

    `claim` returns the messages that no committed transaction has claimed before. It stores their
    offsets in the table `flowstream_offsets` of the same database, in the same transaction. If the
    transaction is rolled back, or the process dies before the commit, they are not claimed.
    """

    @takes(ExactlyOnceArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        self.reference: str = make(ExactlyOnceArguments, arguments, values, "ExactlyOnce").reference

    def create_table(self, connection: Any) -> None:
        """Create the table of offsets if it does not exist, in the connection's transaction."""
        _table(connection)
        connection.execute(CREATE)

    def claim(
        self, connection: Any, batch: Batch[T], messages: Iterable[Message[T]] | None = None
    ) -> list[Message[T]]:
        """The messages that were not written before. After the commit they count as written.

        `connection` is a connection of `sqlite3` or psycopg 3, in the transaction that writes the
        rows. For SQLite, a transaction is started if there is none. `messages` are the messages of
        the batch to write, by default all; leave out the ones that you fail. Another transaction
        that claims messages of the same streams waits until this one ends.

        Raises StreamReplaced if a stream was deleted and created again, and ConfigurationError if
        the source stores no offsets: then offsets do not identify messages in the next run.
        """
        given = batch.messages if messages is None else list(messages)
        settled = batch.settled
        places: list[Place | None] = []
        for message in given:
            stream = message.stream
            if settled is not None and stream not in settled:
                raise ConfigurationError(
                    f"ExactlyOnce({self.reference!r}): the source of {stream!r} stores no offsets, "
                    "so the next run could not recognise its messages; use a source that does, "
                    "such as StreamProducer"
                )
            # A message that its handler settled early may be below the watermark and not written.
            early = message.settled_early
            places.append(None if early else (stream, message.offset, message.timestamp))
        claim = Claim(_table(connection), self.reference, places)
        claim.store(claim.fresh, settled or {})
        return [given[index] for index in claim.fresh]

    def forget(self, connection: Any, stream: str) -> None:
        """Forget what was written of a stream, so that its messages can be written again."""
        _table(connection).forget(self.reference, stream)


def _table(connection: Any) -> OffsetsTable:
    """The table of offsets, in the transaction of the connection."""
    module = type(connection).__module__.partition(".")[0]
    if module == "sqlite3":
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        rows = connection.cursor()
        rows.row_factory = None  # the connection may have one for its own rows
        return OffsetsTable(lambda text, values: rows.execute(text, values).fetchall(), SQLITE)
    if module == "psycopg" and iscoroutinefunction(getattr(connection, "execute", None)):
        raise ConfigurationError(
            "ExactlyOnce: claim blocks, and an AsyncConnection cannot; use psycopg.Connection in a "
            "handler without async, which runs in a thread"
        )
    if module == "psycopg" and hasattr(connection, "fileno"):
        if connection.autocommit and connection.info.transaction_status == 0:
            raise ConfigurationError(
                "ExactlyOnce: the connection is in autocommit mode and has no transaction; call "
                "claim inside `with connection.transaction():`"
            )

        tuples = import_module("psycopg.rows").tuple_row

        def execute(text: str, values: Sequence[Any]) -> list[Any]:
            cursor = connection.cursor(row_factory=tuples).execute(text, values)
            return [] if cursor.description is None else cursor.fetchall()

        return OffsetsTable(execute, POSTGRES)
    raise ConfigurationError(
        f"ExactlyOnce: expected a connection of sqlite3 or psycopg, not {type_name(connection)}; "
        "with SQLAlchemy, pass connection.connection.driver_connection"
    )
