"""Runs what users wrote, whatever it does: it may raise anything, hang, block, or die.

worker_state.py is what one worker has in its hands, pool.py the workers of a stage. calls.py calls
a handler on the loop or in a thread (threads.py), lending.py with one message object for a whole
slice, processes.py in a process (worker_process.py).
return_checks.py looks at what comes back. watchdog.py ends what takes longer than its timeout and
reports what is stuck; loopwatch.py names what blocks the event loop.
"""
