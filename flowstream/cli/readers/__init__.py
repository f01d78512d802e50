"""Who reads a stream, and how far each reader is.

position.py        what a reader has settled, its lag, and what storing another offset does
active_readers.py  whether a reader is running, before its offset is changed
other_runs.py      whether another process uses the same reference, when a run starts
monitor_client.py  the snapshot of a run, from its monitor
"""
