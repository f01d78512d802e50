"""Sinks that write rows into SQL databases, each message exactly once.

The promise: one transaction commits the rows of a batch and the offsets of its messages. So after
any crash, retry or hand-over, either both are stored or neither is. This holds for batches in any
order, for any number of workers, and for a process that lost its partition and still writes.

    done_ranges.py      (in connectors) which offsets are done, as sorted ranges
    offsets_table.py    these ranges in a table, and which messages of a batch are new
    transaction.py      one batch in one transaction; finds refused rows by halving
    columns.py          a model's fields as columns, a message's data as a row
    statements.py       the SQL that both databases share
    sink.py             options, connections, threads and retries
    sqlite.py           SqliteSink
    postgres.py         PostgresSink
    exactly_once.py     ExactlyOnce, for handlers with a transaction of their own

Read them in this order.
"""

from flowstream.connectors.sql.exactly_once import ExactlyOnce
from flowstream.connectors.sql.postgres import PostgresSink
from flowstream.connectors.sql.sink import SqlSink
from flowstream.connectors.sql.sqlite import SqliteSink

__all__ = ["ExactlyOnce", "PostgresSink", "SqlSink", "SqliteSink"]
