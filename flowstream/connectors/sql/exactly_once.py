"""ExactlyOnce: for handlers that write to a database in a transaction of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    """Lets a handler write each message once, with the transaction that it writes in.

        once = ExactlyOnce("orders/load")

        @pipeline.batcher(size=500)
        def load(batch: Batch[Order], database: sqlite3.Connection) -> None:
            with database:
                for message in once.claim(database, batch):
                    database.execute("INSERT ...", ...)

    `claim` gives the messages that no committed transaction has claimed before. What it claims is
    stored in the table `flowstream_offsets` of the same database, by the same transaction: if that
    is rolled back, or the process dies before it is committed, the messages are not claimed.
    """

    @takes(ExactlyOnceArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        self.reference: str = make(ExactlyOnceArguments, arguments, values, "ExactlyOnce").reference

    def create_table(self, connection: Any) -> None:
        """Create the table of offsets where it does not exist, in the connection's transaction."""
        _table(connection)
        connection.execute(CREATE)

    def claim(
        self, connection: Any, batch: Batch[T], messages: Iterable[Message[T]] | None = None
    ) -> list[Message[T]]:
        """The messages that are not written yet; from the commit on they count as written.

        `connection` is one of `sqlite3` or psycopg 3, in the transaction that writes the rows; of
        SQLite, one is begun where there is none. `messages` are those of the batch that are to be
        written, by default all: leave out what you fail. Another transaction that claims messages
        of the same streams waits for the end of this one.

        Raises StreamReplaced where a stream was deleted and created again, and ConfigurationError
        where the source stores no offsets: the next run would begin with the same ones.
        """
        given = batch.messages if messages is None else list(messages)
        settled = batch.settled
        places: list[Place | None] = []
        for message in given:
            stream = message.stream
            if settled is not None and stream not in settled:
                raise ConfigurationError(
                    f"ExactlyOnce({self.reference!r}): the source of {stream!r} stores no offsets, "
                    "so that its messages cannot be known again in the next run"
                )
            # What a handler settled early may be below the watermark before it is written.
            early = message.settled_early
            places.append(None if early else (stream, message.offset, message.timestamp))
        claim = Claim(_table(connection), self.reference, places)
        claim.store(claim.fresh, settled or {})
        return [given[index] for index in claim.fresh]

    def forget(self, connection: Any, stream: str) -> None:
        """Let the messages of a stream be written again, such as for a replay."""
        _table(connection).forget(self.reference, stream)


def _table(connection: Any) -> OffsetsTable:
    """The table of offsets, in the transaction of the connection."""
    module = type(connection).__module__.partition(".")[0]
    if module == "sqlite3":
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        return OffsetsTable(
            lambda text, values: connection.execute(text, values).fetchall(), SQLITE
        )
    if module == "psycopg" and hasattr(connection, "fileno"):
        if connection.autocommit and connection.info.transaction_status == 0:
            raise ConfigurationError(
                "ExactlyOnce: the connection is in autocommit mode and in no transaction; claim "
                "inside of `with connection.transaction():`"
            )

        def execute(text: str, values: Sequence[Any]) -> list[Any]:
            cursor = connection.execute(text, values)
            return [] if cursor.description is None else cursor.fetchall()

        return OffsetsTable(execute, POSTGRES)
    raise ConfigurationError(
        f"ExactlyOnce: expected a connection of sqlite3 or psycopg, not {type_name(connection)}; "
        "of SQLAlchemy, give connection.connection.driver_connection"
    )
