"""The real cluster of three, whose nodes are killed and started while tests run."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from tests.brokers import rabbitmq
from tests.brokers.running import Broker

DEADLINE = 90.0
COORDINATORS = (
    "[rpc:call(N, erlang, whereis, [rabbit_stream_coordinator]) || N <- [node()|nodes()]]."
)
REGISTERED = 5.0
"""Seconds after which a new stream coordinator is known to its node's disk."""

outliving: dict[int, subprocess.Popen[bytes]] = {}
"""The nodes that were started here, by number: they go on when the tests have ended."""


class Nodes:
    """The nodes by their number, 0 to 2. Everything here blocks: call it in a thread."""

    def __init__(self, brokers: tuple[Broker, ...]) -> None:
        self._brokers = brokers
        self._cluster = rabbitmq.BROKERS["cluster"]

    def number(self, port: int) -> int:
        """The node that has this stream port."""
        return next(i for i, broker in enumerate(self._brokers) if broker.port == port)

    def kill(self, *numbers: int) -> None:
        """kill -9."""
        for number in numbers:
            rabbitmq.stop(self._cluster.nodes[number])
            self._reap(number)

    def start(self, *numbers: int) -> None:
        """Starts nodes and waits until all three answer and have found each other."""
        started = {}
        for number in numbers:
            node = self._cluster.nodes[number]
            started[node.name] = outliving[number] = rabbitmq.start(self._cluster, node)
        rabbitmq.wait_until_up(self._cluster, started)

    def stop_cleanly(self, number: int) -> None:
        """As a rolling restart does it: the node says goodbye to everybody."""
        self._brokers[number].ctl("stop")
        deadline = time.monotonic() + DEADLINE
        while rabbitmq.find_pid(self._cluster.nodes[number]) is not None:
            assert time.monotonic() < deadline, "the node does not stop"
            time.sleep(0.2)
        self._reap(number)

    def _reap(self, number: int) -> None:
        process = outliving.pop(number, None)
        if process is not None:
            process.wait(20)

    def ensure(self) -> None:
        """All nodes run."""
        down = [i for i, node in enumerate(self._cluster.nodes) if rabbitmq.find_pid(node) is None]
        self.start(*down)

    def settle(self) -> None:
        """All nodes have a stream coordinator that outlives a kill.

        A new cluster makes it with its first stream; a node that is killed in the seconds after
        that has forgotten it for good, and then two of three nodes are all that the cluster has.
        """
        name = "settling.the.cluster"
        members = self._coordinators()
        if not any(members):
            arguments: dict[str, Any] = {"x-queue-type": "stream"}
            queue = f"queues/%2F/{name}"
            self._brokers[0].api("PUT", queue, {"durable": True, "arguments": arguments})
            time.sleep(REGISTERED)
            self._brokers[0].api("DELETE", queue)
        deadline = time.monotonic() + DEADLINE
        while not all(members):
            assert time.monotonic() < deadline, (
                "a node has no stream coordinator: run tests/brokers/rabbitmq.py up --fresh cluster"
            )
            members = self._coordinators()

    def _coordinators(self) -> list[bool]:
        """Which of the nodes have a member of the stream coordinator."""
        found = self._brokers[0].ctl("eval", COORDINATORS)
        return [number <= found.count("<") for number in range(1, len(self._brokers) + 1)]

    def move_leader(self, stream: str, number: int) -> None:
        """Asks for the stream's leader to be on this node."""
        broker = self._brokers[number]
        broker.streams("restart_stream", stream, "--preferred-leader-node", broker.node)
