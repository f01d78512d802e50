"""Runs users' code, which may raise anything, hang, block the event loop, or end its process.

It promises one result for each message or batch that a handler was given: success, or a failure
that says why. Only a cancellation of the worker itself and a KeyboardInterrupt pass through.

In the order to read: worker_state.py (what one worker holds), pool.py (the workers of a stage),
calls.py (calls a handler on the event loop, or in a thread of threads.py), lending.py (calls it
with one message object for a whole slice), processes.py (calls it in a process, which is
worker_process.py), return_checks.py (checks what it returned), watchdog.py (ends what exceeds its
timeout, reports what is stuck), loopwatch.py (reports what blocks the event loop).
"""
