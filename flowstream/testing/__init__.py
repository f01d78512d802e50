"""Helpers for users' tests; no plugin is needed, they are context managers and plain objects.

brokers.py   the embedded broker, in memory on a free port
"""

from flowstream.testing.brokers import broker, broker_in_thread

__all__ = ["broker", "broker_in_thread"]
