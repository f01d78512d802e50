"""What the stages decide, without I/O: what comes next, how much, and when.

Each file takes `now` as an argument where time matters, and is tested without an event loop:
window.py and rate_limit.py (may more come in?), queues.py and slice_sizer.py (who handles which
messages?), batching.py and batch_scheduler.py (which batch is full, which may be handled?),
commit_schedule.py, timer_queue.py, restarts.py, repeats.py (when?), discards.py, state_timer.py.
"""
