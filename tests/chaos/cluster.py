"""The real cluster of three, whose nodes are killed and started while tests run."""

from __future__ import annotations

import subprocess
import time

from tests.brokers import rabbitmq
from tests.brokers.running import Broker

DEADLINE = 90.0


class Nodes:
    """The nodes by their number, 0 to 2. Everything here blocks: call it in a thread."""

    def __init__(self, brokers: tuple[Broker, ...]) -> None:
        self._brokers = brokers
        self._cluster = rabbitmq.BROKERS["cluster"]

    def number(self, port: int) -> int:
        """The node that has this stream port."""
        return next(i for i, broker in enumerate(self._brokers) if broker.port == port)

    def kill(self, *numbers: int) -> None:
        """kill -9, all of them before the first one is waited for."""
        for number in numbers:
            rabbitmq.stop(self._cluster.nodes[number])

    def start(self, *numbers: int) -> None:
        """Starts nodes and waits until all three answer and have found each other."""
        started = {
            self._cluster.nodes[n].name: rabbitmq.start(self._cluster, self._cluster.nodes[n])
            for n in numbers
        }
        rabbitmq.wait_until_up(self._cluster, started)

    def stop_cleanly(self, number: int) -> None:
        """As a rolling restart does it: the node says goodbye to everybody."""
        self._brokers[number].ctl("stop")
        deadline = time.monotonic() + DEADLINE
        while rabbitmq.find_pid(self._cluster.nodes[number]) is not None:
            assert time.monotonic() < deadline, "the node does not stop"
            time.sleep(0.2)

    def ensure(self) -> None:
        """All nodes run."""
        down = [i for i, node in enumerate(self._cluster.nodes) if rabbitmq.find_pid(node) is None]
        self.start(*down)

    def move_leader(self, stream: str, number: int) -> None:
        """Asks for the stream's leader to be on this node."""
        root = self._cluster.root
        preferred = self._cluster.nodes[number].name
        subprocess.run(
            [
                *("chroot", root, "/usr/lib/rabbitmq/bin/rabbitmq-streams"),
                *("-n", preferred, "restart_stream", stream),
                *("--preferred-leader-node", preferred),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
