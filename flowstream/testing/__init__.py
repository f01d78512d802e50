"""Helpers for users' tests; no plugin is needed, they are context managers and plain objects.

brokers.py   the embedded broker, in memory on a free port
clock.py     virtual time: an hour's timeout passes in a millisecond
"""

from flowstream.testing.brokers import broker, broker_in_thread
from flowstream.testing.clock import run_virtual, threads_take_time, virtual_time

__all__ = ["broker", "broker_in_thread", "run_virtual", "threads_take_time", "virtual_time"]
