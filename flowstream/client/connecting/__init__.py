"""Connections to brokers: opening, authenticating, sharing and recovering them.

This room promises that a request is answered, or raises within its timeout; that a lost connection
is reported to each of its users once; and that an open environment always tries to get it back.

Read the files in this order:

    url.py, credentials.py     where to connect to, and as whom
    transport.py, sockets.py   byte streams over TCP and TLS
    settings.py                times and limits of all connections, and the backoff
    handshake.py               from a byte stream to an authenticated connection
    connection.py              one connection: requests, writing, reading, heartbeats
    users.py                   what a connection calls on its users, and their ids
    pool.py                    up to 256 publishers or subscriptions share a connection to a node
    locator.py                 the locator connection, and how to reach the nodes of a stream
    partitions.py              the partitions of a super stream
    recovery.py                states, and the loop that attaches a publisher or consumer again
    outages.py                 what the log says about lost and recovered connections
    manager.py                 ConnectionManager: all of it, for one environment
    tasks.py                   background tasks with an owner
"""
