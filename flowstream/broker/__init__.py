"""The embedded broker: a real server of the real protocol over SQLite, for one machine.

    server.py         the listener, the data folder, the clock; `Broker`
    session.py        one connection: reader, writer, what it has
    handlers.py       the table of handlers
    handshake.py      handlers: the connection itself
    publishing.py     handlers: publishers
    consuming.py      handlers: consumers and offsets
    administration.py handlers: streams and super streams
    access.py         SASL PLAIN
    node.py           what all connections share
    links.py          publishers and subscriptions, the credit rule
    single_active.py  who of a group of consumers is active
    catalog.py        streams and super streams by name, the rules for making them
    log.py            one stream: accept, seal into chunks
    building.py       from entries to chunks
    retention.py      which segments a stream keeps
    committer.py      the one writer
    cache.py          the newest chunks in memory
    store.py          what a store is; the one in memory
    sqlite.py         the one on disk
    folder.py         the data folder, its lock, and where its broker listens
    records.py        what a store keeps

Bytes become frames and commands in `flowstream.protocol`; a command becomes a call of its handler,
which decides at once on what is in memory; what must last goes to the committer, and is confirmed,
shown and answered once it is on the disk.

Where it differs from RabbitMQ 4.3, whose answers it gives otherwise:
- filters are exact, where a Bloom filter also lets through what only looks alike;
- arguments that RabbitMQ breaks on, or takes without a meaning (`max-age` "x"), are refused with
  code 17, and so are names over 255 bytes;
- one virtual host "/", SASL PLAIN, no permissions; a client cannot leave out Tune.
"""

from flowstream.broker.data_dir import LocalBroker, find_local_broker
from flowstream.broker.node import Limits
from flowstream.broker.server import Broker, BrokerStatistics

__all__ = ["Broker", "BrokerStatistics", "Limits", "LocalBroker", "find_local_broker"]
