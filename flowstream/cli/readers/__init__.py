"""Who reads a stream, and how far each reader is.

position.py        what a reader has settled, what is left, and how old that is
active_readers.py  does a reader run now? Asked before its offset is changed
other_runs.py      does another process use the same reference? Asked when a run starts
monitor_client.py  the monitor of a run, asked from outside
"""
