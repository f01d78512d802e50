"""The embedded broker: a server of RabbitMQ's stream protocol for one machine, over SQLite.

It is for development, tests and pipelines that need no cluster: `flowstream broker`,
`flowstream run --embedded`, `flowstream.testing.broker`. Clients need not know the difference.

What it promises:

* **A confirmed message is on the disk.** Confirms, stored offsets that a query returns, and answers
  to changes of streams are sent after the transaction with them has been synced; they survive
  `kill -9` and a power cut. With `data=None` everything is in memory and ends with the broker.
* **It answers as RabbitMQ 4.3 does**, with the same response codes, deadlines and delays; the tests
  replay sessions that were captured from RabbitMQ, and run one suite against both.
* **A client harms its own connection only.** Frames, unconfirmed entries, unsent answers and
  chunks in memory are bounded for each connection; what breaks the protocol ends the connection.

Where it differs from RabbitMQ 4.3:

* A consumer with a filter is sent the chunks that match it exactly; RabbitMQ's Bloom filter also
  lets through others.
* Arguments that RabbitMQ accepts but cannot use (`max-age` "x") are refused with code 17, and so
  are names over 255 bytes.
* There is one virtual host "/", SASL PLAIN only, and no permissions. A client cannot leave out
  Tune.

How a command travels, and the order in which to read the files:

    server.py          accepts a connection, opens the data directory
    session.py         reads bytes, which `flowstream.protocol` turns into commands; writes answers
    handlers.py        the table: which function handles which command
      handshake.py       log in, tune, open, close
      publishing.py      publishers
      consuming.py       subscriptions, credit, stored offsets
      administration.py  streams and super streams
    registrations.py   a connection's publishers and subscriptions; `Listener`
    node.py            what all connections share
    catalog.py         all streams by name, the rules for creating them
    single_active.py   which of a group of consumers is active
    stream.py          one stream: accept entries, seal them into chunks, retention
    chunk_builder.py   which entries go into one chunk
    committer.py       group commit: writes changes, then confirms and shows them
    reader.py          finds and reads durable chunks, with a cache of the newest
    store.py           what a store is; the one in memory
    sqlite.py          the store on disk: what is synced when
    data_dir.py        the data directory, its lock and the address in it
    records.py         what a store keeps, and the changes to it

A handler decides at once on what is in memory; changes go to the committer. Whatever the committer
or another connection has to report comes back to the session through the methods of `Listener`.
"""

from flowstream.broker.data_dir import LocalBroker, find_local_broker
from flowstream.broker.handshake import PRODUCT
from flowstream.broker.node import Limits
from flowstream.broker.server import Broker, BrokerStatistics

__all__ = ["PRODUCT", "Broker", "BrokerStatistics", "Limits", "LocalBroker", "find_local_broker"]
