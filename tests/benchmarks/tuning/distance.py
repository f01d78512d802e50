"""A broker that is far away: every byte arrives some milliseconds later, in both directions."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue

READ = 1 << 18


@contextmanager
def far_away(host: str, port: int, delay: float) -> Iterator[int]:
    """A port that leads to the broker, `delay` seconds each way.

    It belongs into another process than the client's, whose CPU seconds are measured.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, (host, port), delay), daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def _accept(listener: socket.socket, broker: tuple[str, int], delay: float) -> None:
    with suppress(OSError):  # it is closed
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(broker)
            for source, target in ((near, far), (far, near)):
                under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                for work, end in ((_receive, source), (_send, target)):
                    threading.Thread(target=work, args=(end, under_way, delay), daemon=True).start()


def _receive(source: socket.socket, queue: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    data = b"first"
    while data:
        data = b""
        with suppress(OSError):
            data = source.recv(READ)
        queue.put((time.monotonic() + delay, data))


def _send(target: socket.socket, queue: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    with suppress(OSError), target:
        while True:
            due, data = queue.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                return
            target.sendall(data)
