"""The decisions of the stages, without I/O: which messages come next, how many, and when.

Nothing here waits or reads a clock: `now` is an argument, so each file is tested without an event
loop, many of them against a naive model:
window.py and rate_limit.py (may more come in?), queues.py and slice_sizer.py (who handles which
messages?), batching.py, rolling.py and batch_scheduler.py (which batch is full, which may be
handled?), commit_schedule.py, timer_queue.py, restarts.py, repeats.py (when?), discards.py,
state_timer.py.
"""
