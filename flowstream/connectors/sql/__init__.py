"""SQL databases as the end of a pipeline: every message is written once, whatever dies.

The promise: the rows of a batch and the offsets of its messages are committed by one transaction,
so after any crash, retry or hand-over a message is either written and known as written, or neither.
It holds for any order of batches, any number of workers and for processes that should be dead.

    done_ranges.py      (in connectors) which offsets are done: sorted ranges, pure
    offsets_table.py    these ranges in a table, and what a transaction may claim of a batch
    transaction.py      one batch, one transaction; rows that are refused are found by halving
    columns.py          a model's fields as columns, a message's data as a row
    statements.py       the SQL that both databases share
    sink.py             options, connections, threads, what is tried again
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
